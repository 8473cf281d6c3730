"""Sliding window: the newest blocks win, whatever they hold."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.calls import check_index
from msa.scorers.tiles import empty_scores, hide_future_blocks, query_tiles


def score_recent(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,  # noqa: ARG001 - one signature for all scorers
    seed: int = 0,  # noqa: ARG001
) -> Tensor:
    """The block's own id, so that later blocks score higher. Shapes: :mod:`msa.scorers`."""
    check_index(q, k, cu_q, cu_k, block)
    groups = q.shape[1]
    scores = empty_scores(q, groups, cu_k, block)
    for tile in query_tiles(cu_q, cu_k, block=block, bytes_per_key=4 * groups / block):
        ids = torch.arange(tile.blocks, device=q.device, dtype=torch.float32)
        newest = ids.expand(len(tile.positions), groups, -1).clone()
        scores[tile.rows, :, : tile.blocks] = hide_future_blocks(newest, tile, block)
    return scores
