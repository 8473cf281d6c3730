"""What the bytes of E4M3 and NVFP4 mean, by the formats' own words and apart from what is judged.

OCP 8-bit Floating Point Specification (OFP8), revision 1.0: a sign, four bits of exponent with a
bias of 7, three of mantissa; no infinity, and NaN where all bits behind the sign are set.

OCP Microscaling Formats, revision 1.0, of E2M1: a sign, two bits of exponent with a bias of 1, one
of mantissa; neither infinity nor NaN. In NVFP4 sixteen of them share a scale in E4M3.
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


def _small(code: int) -> float:
    exponent, mantissa = code >> 1 & 3, code & 1
    size = mantissa / 2 if not exponent else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
    return -size if code >> 3 else size


_SMALL = torch.tensor([_small(code) for code in range(16)], dtype=torch.float64)


def meant_packed(packed: Tensor, scales: Tensor) -> Tensor:
    """Float64 ``[.., d]`` of NVFP4, the low half of a byte first, and scales ``[.., d / 16]``."""
    codes = packed.view(torch.uint8).long()
    elements = torch.stack([_SMALL[codes % 16], _SMALL[codes // 16]], -1).flatten(-2)
    channel = torch.arange(elements.shape[-1])
    return elements * meant(scales, None)[..., channel // 16]


def meant(codes: Tensor, factors: Tensor | None) -> Tensor:
    """Float64 ``[t, heads, d]`` of bytes in E4M3 and the factors of their heads, 1 for None."""
    values = _VALUES[codes.view(torch.uint8).long()]
    return values if factors is None else values * factors.double()[:, None]
