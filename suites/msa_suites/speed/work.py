"""Exact work of an implementation, counted from the selection it returned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msa.packing import segments


@dataclass(frozen=True, slots=True)
class Work:
    """What a selection makes the main branch do, summed over queries and groups.

    Attributes:
        blocks: selected blocks.
        tokens: (query, key) pairs that are attended, once per group.
        flops: operations of the attention over those pairs, all heads.
    """

    blocks: int
    tokens: int
    flops: int


def count_work(
    selection: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, heads: int, dim: int
) -> Work:
    """Count a packed batch.

    Args:
        selection: int32 ``[Tq, Hkv, k]``, -1 where empty.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        heads: query heads, Hq.
        dim: head dim, D.
    """
    ids = selection.long()
    position = torch.cat([s.positions() for s in segments(cu_q, cu_k)])[:, None, None]
    visible = (position + 1 - ids * block).clamp(0, block)
    visible = torch.where(ids >= 0, visible, 0)
    tokens = int(visible.sum())
    per_group = heads // selection.shape[1]
    return Work(int((ids >= 0).sum()), tokens, 4 * dim * per_group * tokens)
