"""What the compiler makes of an implementation's kernels, without a GPU."""
