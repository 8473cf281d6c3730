"""The true attention mass of every block: what a selector would choose if it knew."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.scorers.heads import check_heads, grouped_queries
from msa.scorers.tiles import (
    empty_scores,
    hide_future_blocks,
    hide_future_tokens,
    padded_keys,
    query_tiles,
)


def score_oracle(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    seed: int = 0,  # noqa: ARG001 - one signature for all scorers
) -> Tensor:
    """Softmax mass of a block under dense attention, averaged over the heads of the group.

    Args:
        q: every query head, ``[Tq, Hq, D]``.
        k: keys of the main branch, ``[Tk, Hkv, D]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits, that of the attention itself.
        seed: not used.

    Returns:
        float32 ``[Tq, Hkv, NB]``: every row sums to one over its visible blocks.
    """
    check_heads(q, k, cu_q, cu_k, block)
    groups = k.shape[1]
    heads = q.shape[1] // groups
    scores = empty_scores(q, groups, cu_k, block)
    for tile in query_tiles(cu_q, cu_k, block=block, bytes_per_key=4 * q.shape[1]):
        queries = grouped_queries(q, tile, groups)  # [G, R * rows, D]
        logits = torch.matmul(queries, padded_keys(k, tile, block)).mul_(scale)
        logits = hide_future_tokens(logits.view(groups, heads, len(tile.positions), -1), tile)
        mass = logits.softmax(-1).view(*logits.shape[:3], -1, block).sum(-1)  # [G, R, rows, nb]
        mass = mass.mean(1).transpose(0, 1).contiguous()
        scores[tile.rows, :, : tile.blocks] = hide_future_blocks(mass, tile, block)
    return scores
