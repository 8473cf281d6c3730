"""What the bytes of E4M3 mean, by the format's own words and apart from the code under test.

OCP 8-bit Floating Point Specification (OFP8), revision 1.0: a sign, four bits of exponent with a
bias of 7, three of mantissa; no infinity, and NaN where all bits behind the sign are set.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _value(byte: int) -> float:
    exponent, mantissa = byte >> 3 & 15, byte & 7
    if (exponent, mantissa) == (15, 7):
        return math.nan
    size = mantissa / 8 * 2.0**-6 if not exponent else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if byte >> 7 else size


_VALUES = torch.tensor([_value(byte) for byte in range(256)], dtype=torch.float64)


def meant(codes: Tensor, factors: Tensor | None) -> Tensor:
    """Float64 ``[t, heads, d]`` of bytes in E4M3 and the factors of their heads, 1 for None."""
    values = _VALUES[codes.view(torch.uint8).long()]
    return values if factors is None else values * factors.double()[:, None]
