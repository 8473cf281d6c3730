"""The method's own scorer: the best visible token of a block (the paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.calls import check_index
from msa.scorers.tiles import empty_scores, hide_future_tokens, padded_keys, query_tiles


def score_max(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    seed: int = 0,  # noqa: ARG001 - one signature for all scorers
) -> Tensor:
    """Maximum of the visible token scores. Shapes: :mod:`msa.scorers`."""
    check_index(q, k, cu_q, cu_k, block)
    groups = q.shape[1]
    scores = empty_scores(q, groups, cu_k, block)
    for tile in query_tiles(cu_q, cu_k, block=block, bytes_per_key=4 * groups):
        queries = q[tile.rows].float().transpose(0, 1)  # [G, rows, Di]
        keys = padded_keys(k, tile, block)  # [1 or G, Di, S]
        token = torch.matmul(queries, keys).mul_(scale)  # [G, rows, S]
        best = (
            hide_future_tokens(token, tile).view(*token.shape[:2], -1, block).amax(-1)
        )  # [G, rows, blocks]
        scores[tile.rows, :, : tile.blocks] = best.transpose(0, 1)
    return scores
