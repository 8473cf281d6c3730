"""MiniMax Sparse Attention in plain PyTorch: the specification and a fast CPU path."""

from msa.config import MSAConfig

__all__ = ["MSAConfig", "__version__"]

__version__ = "0.1.0"
