"""Four-bit floats as NVIDIA keeps caches in them: two elements a byte, one scale for 16 elements.

An element is OCP's E2M1 (sign, two bits of exponent with a bias of 1, one of mantissa): 0, 0.5, 1,
1.5, 2, 3, 4 or 6, and no NaN. Element 2 i is the low half of byte i (``torch.float4_e2m1fn_x2``).
Its value is the element times the scale of its group of 16 channels, in E4M3. The third level of
NVFP4, one float32 factor for a whole tensor, is the caller's: of keys it belongs into the scale of
the logits, of values behind the output.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from msa.checks import E4M3, GROUP, NVFP4, came

__all__ = ["GROUP", "NVFP4", "quantize", "values"]

#: Values of the eight codes without a sign.
_SIZES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LARGEST = _SIZES[-1]
_LARGEST_SCALE = torch.finfo(E4M3).max


@torch.no_grad()
def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Elements in E2M1 and their scales, by which a group's largest element becomes about 6.

    Scale and elements are rounded to nearest, ties to even. Scales below 2**-6 have few bits, so
    small groups lose more; one whose largest element is 6 * 2**-10 or less becomes 0. What is
    beyond 6 * 448 is held there. NaN is in the scale of its group, which is then all NaN. No
    gradient flows.

    Args:
        x: ``[.., d]``, any floating dtype, d a multiple of 16.

    Returns:
        ``float4_e2m1fn_x2 [.., d / 2]`` and E4M3 ``[.., d / 16]``.

    Raises:
        TypeError: a tensor of ints.
        ValueError: another d.
    """
    if not x.is_floating_point() or x.dtype == NVFP4:
        raise TypeError(f"x: wanted a floating tensor, got {came(x)}")
    if not x.ndim or x.shape[-1] % GROUP or not x.shape[-1]:
        raise ValueError(f"x: wanted channels in groups of {GROUP}, got {came(x)}")
    groups = x.float().unflatten(-1, (-1, GROUP))
    scales = (groups.abs().amax(-1) / _LARGEST).clamp(max=_LARGEST_SCALE).to(E4M3)
    divisor = scales.float()[..., None]
    # A scale of 0 or NaN says all there is to say.
    quotients = torch.where(divisor > 0, groups / divisor, 0.0)
    codes = _nearest(quotients.flatten(-2))
    return (codes[..., ::2] | codes[..., 1::2] << 4).view(NVFP4), scales


def values(x: Tensor, scales: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """What is meant, ``[.., d]``: exact, since a product has six significant bits at most.

    Args:
        x: ``float4_e2m1fn_x2 [.., d / 2]``.
        scales: E4M3 ``[.., d / 16]``.
        dtype: float16, bfloat16 or wider.
    """
    elements = _pairs(dtype, x.device)[x.view(torch.uint8).int()].flatten(-2)
    groups: Tensor = elements.unflatten(-1, (-1, GROUP)) * scales.to(dtype)[..., None]
    return groups.flatten(-2)


def _nearest(x: Tensor) -> Tensor:
    """uint8 codes of the nearest elements; ties go to the code that is even."""
    sizes = torch.tensor(_SIZES, device=x.device)
    middles = (sizes[1:] + sizes[:-1]) / 2
    # Counted are the middles below x; every second one is lowered a step, so that its tie counts.
    middles[1::2] = torch.nextafter(middles[1::2], torch.zeros_like(middles[1::2]))
    code = torch.bucketize(x.abs(), middles).to(torch.uint8)
    return code | torch.signbit(x).to(torch.uint8) << 3


@cache
def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[256, 2]``: the elements of every byte."""
    signed = torch.tensor([*_SIZES, *(-size for size in _SIZES)], dtype=dtype, device=device)
    byte = torch.arange(256, device=device)
    return torch.stack([signed[byte & 15], signed[byte >> 4]], -1)
