"""The best blocks by their maxima."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_kernels.adapters.converting import ascending
from msa_kernels.compat.arguments import kept_in


def sparse_topk_select(
    max_score: Tensor,
    topk: int,
    num_valid_pages: int | None = None,
    output: Tensor | None = None,
    force_begin_blocks: int = 0,
    force_end_blocks: int = 0,
) -> Tensor:
    """The best blocks of every query and head.

    Args:
        max_score: float32 ``[H, tiles, T]``.
        topk: blocks to keep.
        num_valid_pages: blocks of the sequence; all tiles by default.
        output: where the ids go, or None.
        force_begin_blocks: first blocks that are kept.
        force_end_blocks: last blocks of the sequence that are kept, of those that are visible.

    Returns:
        int32 ``[T, H, topk]``, ascending, then -1.

    Raises:
        ValueError: a number that cannot be.
    """
    tiles = max_score.shape[1]
    valid = tiles if num_valid_pages is None else num_valid_pages
    if not 0 < valid <= tiles:
        raise ValueError(f"num_valid_pages: wanted 1 to {tiles}, got {valid}")
    if topk < 1 or force_begin_blocks + force_end_blocks > topk:
        raise ValueError(
            f"topk: wanted at least {max(1, force_begin_blocks + force_end_blocks)}, got {topk}"
        )
    scores = max_score.permute(2, 0, 1)[..., :valid]
    column = torch.arange(valid, device=scores.device)
    forced = (column < force_begin_blocks) | (column >= valid - force_end_blocks)
    hidden = scores == -torch.inf
    ranked = scores.masked_fill(forced & ~hidden, torch.inf)
    best = ranked.sort(dim=-1, descending=True, stable=True)
    width = min(topk, valid)
    ids = torch.where(best.values == -torch.inf, -1, best.indices)[..., :width].int()
    found = ascending(torch.nn.functional.pad(ids, (0, topk - width), value=-1))
    return kept_in(output, found)
