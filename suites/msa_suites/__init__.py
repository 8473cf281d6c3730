"""What is measured: correctness, quality and speed of an MSA implementation."""
