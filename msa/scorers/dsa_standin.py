"""A stand-in for DSA's indexer without its training: ReLU of every head, one score for all."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.scorers.heads import check_heads, grouped_queries
from msa.scorers.tiles import empty_scores, hide_future_tokens, padded_keys, query_tiles


def score_dsa_standin(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    seed: int = 0,  # noqa: ARG001 - one signature for all scorers
) -> Tensor:
    """Sum over heads of ``weight * ReLU(q . k)`` (DeepSeek-V3.2, its first equation).

    DSA has index heads of its own, one key for all of them and weights that depend on the query;
    here the index heads are the model's query heads with the keys of their groups, and each weighs
    the same. Every group gets the same scores, so all heads share one selection. DSA ranks single
    tokens, which is a block of 1; a larger block has the score of its best visible token.

    Args:
        q: every query head, ``[Tq, Hq, D]``.
        k: keys of the main branch, ``[Tk, Hkv, D]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the products, before the ReLU.
        seed: not used.

    Returns:
        float32 ``[Tq, Hkv, NB]``, equal along Hkv; 0 or more where a token is visible.
    """
    check_heads(q, k, cu_q, cu_k, block)
    groups, heads = k.shape[1], q.shape[1]
    scores = empty_scores(q, groups, cu_k, block)
    for tile in query_tiles(cu_q, cu_k, block=block, bytes_per_key=4 * heads):
        products = torch.matmul(grouped_queries(q, tile, groups), padded_keys(k, tile, block))
        positive = products.mul_(scale).relu_().view(heads, len(tile.positions), -1)
        token = hide_future_tokens(positive.mean(0), tile)  # [rows, S]
        best = token.view(len(tile.positions), -1, block).amax(-1)  # [rows, blocks]
        scores[tile.rows, :, : tile.blocks] = best[:, None]
    return scores
