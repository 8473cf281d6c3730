"""Attention with the key blocks outermost, over gathered queries: the way of long prefills.

A chunk of rows at a time: the slots of its selection are sorted by block on the device, each tile
of a list is one product that fills a tensor core, each slot owns its partial output, and the parts
of a row are merged by their LSEs. Nothing waits for the device, and nothing is added atomically.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa_kernels.triton_ops.attention.key_outer.kernel import attend_list, name_lists
from msa_kernels.triton_ops.combining import merge
from msa_kernels.triton_ops.limits import on
from msa_kernels.triton_ops.tiles import FUSION, KEY_OUTER, halvings, padded, tile_of

#: Bytes of partial outputs that are held at a time.
_HELD = 1 << 31
#: Comparisons that a program makes at once when it looks for blocks that stand there twice.
_COMPARED = 4096


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
) -> None:
    """Fill in ``out`` ``[Tq, Hq, D]`` and ``lse`` ``[Tq, Hq]``, both contiguous."""
    each = q.shape[1] * selection.shape[2] * q.shape[2] * q.element_size()
    chunk = max(_HELD // each, 1)
    for low in range(0, len(q), chunk):
        part = slice(low, low + chunk)
        _attend_chunk(
            q, k, v, selection, out[part], lse[part], low,
            cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
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
) -> None:
    """Rows ``low`` to ``low + len(out)``."""
    rows, heads, dim = out.shape
    groups, topk = selection.shape[1:]
    cu_q, cu_k = cu_q.contiguous(), cu_k.contiguous()
    sequences = len(cu_q) - 1
    blocks = len(k) // block + sequences  # at most
    lists, entries = groups * blocks, rows * groups * topk
    slots = padded(topk, 2)
    names = selection.new_empty((entries,))
    items = max(_COMPARED // slots**2, 1)
    tile = tile_of(KEY_OUTER, q)
    each = tile.rows // (heads // groups)
    outs = out.new_empty((rows, heads, topk, dim))
    lses = lse.new_full((rows, heads, topk), -torch.inf)
    with on(q):
        name_lists[triton.cdiv(rows * groups, items),](
            selection,
            names,
            cu_q,
            cu_k,
            *selection.stride(),
            low,
            rows * groups,
            blocks,
            len(k),
            sequences,
            halvings(sequences),
            GROUPS=groups,
            BLOCK=block,
            TOPK=topk,
            SLOTS=slots,
            ITEMS=items,
            num_warps=4,
            **FUSION,
        )
        names, order = torch.sort(names, stable=True)
        edges = torch.arange(lists + 1, dtype=torch.int32, device=q.device)
        starts = torch.searchsorted(names, edges, out_int32=True)
        attend_list[entries // each + lists,](
            q,
            k,
            v,
            order,
            starts,
            outs,
            lses,
            cu_q,
            cu_k,
            *q.stride(),
            *k.stride(),
            *v.stride(),
            float(scale),
            low,
            blocks,
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
