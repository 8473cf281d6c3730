"""Attention with the key blocks outermost, over gathered queries: the way of long prefills.

A chunk of rows at a time: the slots of its selection are sorted by block on the device, each tile
of a list is one product that fills a tensor core, each slot owns its partial output, and the parts
of a row are merged by their LSEs. Nothing waits for the device, and nothing is added atomically.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msa_kernels.triton_ops.attention.key_outer.kernel import attend_list
from msa_kernels.triton_ops.attention.lists import list_slots
from msa_kernels.triton_ops.attention.query_outer import Factors
from msa_kernels.triton_ops.combining import merge
from msa_kernels.triton_ops.limits import on
from msa_kernels.triton_ops.tiles import KEY_OUTER, halvings, padded, tile_of

#: Bytes of partial outputs that are held at a time.
_HELD = 1 << 31


def attend_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    factors: Factors = (None, None, None),
) -> None:
    """Fill in ``out`` ``[Tq, Hq, D]`` and ``lse`` ``[Tq, Hq]``, both contiguous."""
    each = q.shape[1] * selection.shape[2] * q.shape[2] * out.element_size()
    chunk = max(_HELD // each, 1)
    for low in range(0, len(q), chunk):
        part = slice(low, low + chunk)
        _attend_chunk(
            q, k, v, selection, out[part], lse[part], low,
            cu_q=cu_q, cu_k=cu_k, block=block, scale=scale, factors=factors,
        )  # fmt: skip


def _attend_chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    out: Tensor,
    lse: Tensor,
    low: int,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    factors: Factors,
) -> None:
    """Rows ``low`` to ``low + len(out)``."""
    rows, heads, dim = out.shape
    groups, topk = selection.shape[1:]
    cu_q, cu_k = cu_q.contiguous(), cu_k.contiguous()
    sequences = len(cu_q) - 1
    entries = rows * groups * topk
    tile = tile_of(KEY_OUTER, q)
    each = tile.rows // (heads // groups)
    outs = out.new_empty((rows, heads, topk, dim))
    lses = lse.new_full((rows, heads, topk), -torch.inf)
    with on(q):
        found = list_slots(selection, low, rows, cu_q=cu_q, cu_k=cu_k, block=block, tokens=len(k))
        lists = groups * found.blocks
        attend_list[entries // each + lists,](
            q,
            k,
            v,
            found.order,
            found.starts,
            outs,
            lses,
            cu_q,
            cu_k,
            *(None if x is None else x.contiguous() for x in factors),
            *q.stride(),
            *k.stride(),
            *v.stride(),
            float(scale),
            low,
            found.blocks,
            len(k),
            entries,
            halvings(lists),
            sequences,
            halvings(sequences),
            GROUPS=groups,
            SHARE=heads // groups,
            DIM=dim,
            DIMS=padded(dim),
            BLOCK=block,
            WIDTH=padded(block),
            TOPK=topk,
            ROWS=tile.rows,
            **tile.options,
        )
    # A slot without a block has LSE -inf: what nobody wrote is not read.
    merge(outs.permute(2, 0, 1, 3), lses.permute(2, 0, 1), out, lse)
