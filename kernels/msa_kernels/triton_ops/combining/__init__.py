"""Merging partial attentions."""

from __future__ import annotations

import triton
from torch import Tensor

from msa import calls
from msa_kernels.triton_ops.combining.kernel import merge_tile
from msa_kernels.triton_ops.limits import on, require_tensors
from msa_kernels.triton_ops.tiles import FUSION, padded

#: Numbers that a program adds up at once.
_SUMS = 2048


def combine(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Merge ``n`` partial attentions over disjoint keys.

    Args:
        outs: float32 ``[n, Tq, Hq, D]``, each normalised by itself.
        lses: float32 ``[n, Tq, Hq]``; -inf marks an empty part, whose output is not read.

    Returns:
        out float32 ``[Tq, Hq, D]`` and LSE float32 ``[Tq, Hq]``.

    Raises:
        ValueError: a shape that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_partials(outs, lses)
    require_tensors(outs=outs, lses=lses)
    out, lse = outs.new_empty(outs.shape[1:]), lses.new_empty(lses.shape[1:])
    merge(outs, lses, out, lse)
    return out, lse


def merge(outs: Tensor, lses: Tensor, out: Tensor, lse: Tensor) -> None:
    """:func:`combine` of parts in any strides and any float dtype, into given tensors.

    Args:
        outs: ``[n, t, Hq, D]``.
        lses: float32 ``[n, t, Hq]``; -inf marks an empty part, whose output is not read.
        out: ``[t, Hq, D]``.
        lse: float32 ``[t, Hq]``, contiguous.
    """
    parts, rows, heads, dim = outs.shape
    if not lse.numel():
        return
    dims = padded(dim)
    items = max(_SUMS // dims, 1)
    with on(outs):
        merge_tile[triton.cdiv(rows * heads, items),](
            outs,
            lses,
            out,
            lse,
            *outs.stride(),
            *lses.stride(),
            *out.stride(),
            parts,
            rows * heads,
            HEADS=heads,
            DIM=dim,
            DIMS=dims,
            ITEMS=items,
            num_warps=4,
            **FUSION,
        )
