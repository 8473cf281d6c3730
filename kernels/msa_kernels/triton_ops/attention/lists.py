"""Which queries chose a block: the slots of a selection sorted by block, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from msa_kernels.triton_ops.attention.key_outer.kernel import name_lists
from msa_kernels.triton_ops.tiles import FUSION, halvings, padded

#: Comparisons that a program makes at once when it looks for blocks that stand there twice.
_COMPARED = 4096


@dataclass(frozen=True, slots=True)
class Lists:
    """The slots of some rows, list by list; a list is a block of a group.

    Attributes:
        order: int64 ``[rows * groups * k]``, places of the slots in the flat selection of the rows.
        starts: int32 ``[groups * blocks + 1]``, where each list begins in ``order``.
        blocks: lists of a group: at least as many as the batch has blocks.
    """

    order: Tensor
    starts: Tensor
    blocks: int


def list_slots(
    selection: Tensor, low: int, rows: int, *, cu_q: Tensor, cu_k: Tensor, block: int, tokens: int
) -> Lists:
    """The lists of rows ``low`` to ``low + rows``; within one, slots in their order.

    Args:
        selection: int32 ``[Tq, Hkv, k]``.
        low: the first row.
        rows: how many.
        cu_q: int32 ``[B + 1]``, contiguous.
        cu_k: int32 ``[B + 1]``, contiguous.
        block: tokens per block.
        tokens: Tk.
    """
    groups, topk = selection.shape[1:]
    sequences = len(cu_q) - 1
    blocks = tokens // block + sequences  # at most
    slots = padded(topk, 2)
    items = max(_COMPARED // slots**2, 1)
    names = selection.new_empty((rows * groups * topk,))
    name_lists[triton.cdiv(rows * groups, items),](
        selection,
        names,
        cu_q,
        cu_k,
        *selection.stride(),
        low,
        rows * groups,
        blocks,
        tokens,
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
    edges = torch.arange(groups * blocks + 1, dtype=torch.int32, device=selection.device)
    return Lists(order, torch.searchsorted(names, edges, out_int32=True), blocks)
