"""The pass on a GPU: conformance, repeated bits, and speed from 4K to 1M tokens, in one command."""
