"""How much of what attention really looks at a selection keeps."""

from __future__ import annotations

import torch
from torch import Tensor


def selected_blocks(selection: Tensor, columns: int) -> Tensor:
    """Which blocks a selection holds, bool ``[..., columns]`` from int32 ids ``[..., k]``."""
    held = selection.new_zeros((*selection.shape[:-1], columns + 1), dtype=torch.bool)
    # Empty slots (-1) land in a column of their own, which is dropped.
    ids = torch.where(selection < 0, columns, selection).long()
    return held.scatter_(-1, ids, value=True)[..., :columns]


def mass_recall(mass: Tensor, selection: Tensor) -> Tensor:
    """Share of the true attention mass that lies in the selected blocks.

    Args:
        mass: float32 ``[T, Hkv, NB]`` of the scorer ``oracle``; -inf where nothing is visible.
        selection: int32 ``[T, Hkv, k]``.

    Returns:
        float32 ``[T, Hkv]`` in [0, 1].
    """
    kept = selected_blocks(selection, mass.shape[-1])
    return torch.where(kept, mass.clamp(min=0.0), 0.0).sum(-1)


def block_recall(
    mass: Tensor,
    selection: Tensor,
    *,
    positions: Tensor,
    block: int,
    topk: int,
    local_blocks: int,
    sink_blocks: int,
) -> Tensor:
    """Share of the freely chosen blocks of the oracle that the selection holds too.

    The oracle fills what the forced blocks leave of k with the blocks of largest mass. Forced
    blocks are in every selection, so they are not counted.

    Args:
        mass: float32 ``[T, Hkv, NB]`` of the scorer ``oracle``.
        selection: int32 ``[T, Hkv, k]``.
        positions: int64 ``[T]``, of the queries in their own sequences.
        block: tokens per block.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.

    Returns:
        float32 ``[T, Hkv]`` in [0, 1]; NaN where there is no choice, because every visible block
        fits in k or the forced blocks fill it.
    """
    ids = torch.arange(mass.shape[-1], device=mass.device)
    local = (positions // block)[:, None]
    visible = ids <= local  # [T, NB]
    forced = visible & ((ids < sink_blocks) | (ids > local - local_blocks))
    free = (visible & ~forced)[:, None]  # [T, 1, NB]
    slots = (topk - forced.sum(-1)).clamp(min=0)[:, None, None]
    choice = (free.sum(-1, keepdim=True) > slots) & (slots > 0)  # [T, 1, 1]
    ranked = mass.masked_fill(~free, -torch.inf).argsort(stable=True, dim=-1, descending=True)
    ahead = torch.empty_like(ranked).scatter_(-1, ranked, ids.expand_as(ranked))
    best = free & (ahead < slots)
    hits = (best & selected_blocks(selection, mass.shape[-1])).sum(-1)
    share = hits / slots[..., 0].clamp(min=1)
    return share.masked_fill(~choice[..., 0], torch.nan)
