"""The first call of PyTorch's vectorised functions, made while nothing can race it.

Imports torch only: it runs in the environment of the code under test.
"""

from __future__ import annotations

import torch

#: Elementwise functions that PyTorch's CPU build hands to oneMKL.
_FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "expm1", "log", "log10"),
    *("log1p", "log2", "sigmoid", "sin", "sqrt", "tan", "tanh"),
)


def settle() -> None:
    """Call each function once on one thread; PyTorch's thread setting is left at one.

    oneMKL picks the kernel of a function in its first call, and a first call on two threads may
    compute one thread's share with a kernel of 11 right bits (pytorch/pytorch#188792). Seen as a
    relative error of 2.7e-5 in the first decode of one process among 2,000 on two busy cores.
    """
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float64):
        values = torch.full((16,), 0.5, dtype=dtype)
        for name in _FUNCTIONS:
            getattr(torch, name)(values)
