"""Micro-benchmarks of single operations, with pytest-benchmark. They time; the gate judges."""
