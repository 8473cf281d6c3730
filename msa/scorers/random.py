"""Random scores: the control with little loss of perplexity and none of the recall."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.calls import check_index
from msa.scorers.tiles import empty_scores, hide_future_blocks, query_tiles

_MASK = (1 << 32) - 1


def _mixed(x: Tensor) -> Tensor:
    """Scramble 32-bit numbers held in int64 (two rounds of multiply and shift)."""
    for factor in (0x7FEB352D, 0x846CA68B):
        x = ((x ^ (x >> 16)) * factor) & _MASK
    return x ^ (x >> 16)


def score_random(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,  # noqa: ARG001 - one signature for all scorers
    seed: int = 0,
) -> Tensor:
    """Uniform scores in [0, 1), a function of seed, query position, group and block alone.

    So a prefill, the same prefill in chunks, and decoding choose the same blocks.
    Shapes: :mod:`msa.scorers`.
    """
    check_index(q, k, cu_q, cu_k, block)
    groups = q.shape[1]
    scores = empty_scores(q, groups, cu_k, block)
    group_key = _mixed(torch.arange(groups, device=q.device) + (seed * 0x9E3779B1 & _MASK))
    # A row needs 8 bytes per block for each of about two temporaries.
    for tile in query_tiles(cu_q, cu_k, block=block, bytes_per_key=16 * groups / block):
        row_key = _mixed(tile.positions[:, None] ^ group_key)  # [rows, G]
        ids = torch.arange(tile.blocks, device=q.device)
        bits = _mixed((row_key[..., None] + ids * 0x85EBCA6B) & _MASK)  # [rows, G, blocks]
        # The upper 24 bits fit a float32 exactly.
        drawn = (bits >> 8).float().mul_(2.0**-24)
        scores[tile.rows, :, : tile.blocks] = hide_future_blocks(drawn, tile, block)
    return scores
