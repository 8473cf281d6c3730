"""Eight-bit floats: E4M3 elements with one factor a head; and whatever is narrow, decoded.

The format is OCP's E4M3 (``torch.float8_e4m3fn``): 448 is the largest, and there is no infinity. An
element times the float32 factor of its head (``descale``, above 0) is the value that is meant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msa import nvfp4
from msa.checks import E4M3, NVFP4, came, require_descale

__all__ = ["E4M3", "NARROW", "NVFP4", "as_stored", "decode", "output_dtype", "quantize"]

#: What caches are kept in beside the dtypes of queries.
NARROW = (E4M3, NVFP4)
_LARGEST = torch.finfo(E4M3).max
_LEAST = torch.finfo(torch.float32).tiny


def quantize(x: Tensor, *, axis: int) -> tuple[Tensor, Tensor]:
    """Elements in E4M3 and the factor of each head, by which its largest element becomes 448.

    Args:
        x: any shape, any floating dtype; NaN is passed on.
        axis: of the heads.

    Returns:
        E4M3 of x's shape, and float32 ``[heads]``, above 0; the factor of a head of zeros is 1, and
        none is below the least normal number.

    Raises:
        TypeError: a tensor of ints.
        ValueError: an axis that x has not.
    """
    if not x.is_floating_point():
        raise TypeError(f"x: wanted a floating tensor, got {came(x)}")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis: wanted one of the {x.ndim} axes of x, got {axis}")
    rest = [other for other in range(x.ndim) if other != axis % x.ndim]
    largest = x.float().abs().nan_to_num(nan=0.0).amax(rest)
    # A quotient below the normal numbers loses its digits, and at last becomes a factor of zero.
    descale = torch.where(largest > 0, (largest / _LARGEST).clamp_min(_LEAST), 1.0)
    return _nearest(x.float() / _beside(descale, x, axis)), descale


def as_stored(x: Tensor, dtype: torch.dtype, descale: Tensor | None) -> Tensor:
    """``x`` in the dtype of a cache: itself, or E4M3 nearest to its quotient by the factors.

    Args:
        x: ``[.., heads, d]``.
        dtype: its own, or E4M3, which holds what is beyond its range at 448.
        descale: float32 ``[heads]``; None for 1.
    """
    if dtype != E4M3:
        return x.to(dtype)
    return _nearest(x.float() if descale is None else x.float() / descale[:, None])


def _nearest(x: Tensor) -> Tensor:
    # Rounding of a factor may leave the largest element a bit above what the format holds.
    return x.clamp(-_LARGEST, _LARGEST).to(E4M3)


def decode(
    name: str, x: Tensor, descale: Tensor | None, *, axis: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The values of ``x`` in ``dtype`` if it is E4M3 or NVFP4, else ``x`` itself.

    Args:
        name: of x; its factors' name ends in ``_descale``.
        x: any shape.
        descale: float32 ``[heads]``, or None for factors of 1; of NVFP4 the scales of its groups.
        axis: of the heads.
        dtype: a wide one; every value is exact in float64.

    Raises:
        ValueError: factors of another shape or dtype, not above 0, or for elements that need none.
    """
    require_descale(f"{name}_descale", descale, x, axis=axis)
    if x.dtype == NVFP4 and descale is not None:
        return nvfp4.values(x, descale, dtype=dtype)
    if x.dtype != E4M3:
        return x
    wide = x.to(dtype)
    return wide if descale is None else wide * _beside(descale.to(dtype), x, axis)


def output_dtype(q: Tensor) -> torch.dtype:
    """The dtype of an output: that of the queries, and bfloat16 for those in E4M3."""
    return torch.bfloat16 if q.dtype == E4M3 else q.dtype


def _beside(descale: Tensor, x: Tensor, axis: int) -> Tensor:
    shape = [1] * x.ndim
    shape[axis] = -1
    return descale.view(shape)
