"""Scorers whose blocks are each described by one pooled key.

A complete block has one key for all queries. Of its own block a query sees a prefix only, so the
pooled key of every prefix is kept too: pooling runs along the block, and its last entry is the
complete block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from msa.packing import count_blocks
from msa.scorers.tiles import empty_scores, hide_future_blocks, query_tiles

#: From keys ``[S, H, Di]`` and the block size to prefix-pooled keys ``[blocks, block, H, Di]``.
Pooling = Callable[[Tensor, int], Tensor]


def block_view(keys: Tensor, block: int) -> Tensor:
    """Keys ``[S, H, Di]`` as ``[blocks, block, H, Di]``, the tail filled with zeros."""
    missing = count_blocks(len(keys), block) * block - len(keys)
    # No query reaches a filled slot: prefixes end at the query, which sits on a real key.
    return functional.pad(keys, (0, 0, 0, 0, 0, missing)).reshape(-1, block, *keys.shape[1:])


def score_with_pooled_keys(
    q: Tensor, k: Tensor, pool: Pooling, *, cu_q: Tensor, cu_k: Tensor, block: int
) -> Tensor:
    """Dot product of every query with the pooled key of what it sees of every block.

    Args:
        q: scaled queries, float32 ``[Tq, Hkv, Di]``.
        k: keys, float32 ``[Tk, 1 or Hkv, Di]``.
        pool: the pooling.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.

    Returns:
        float32 ``[Tq, Hkv, NB]``.
    """
    scores = empty_scores(q, q.shape[1], cu_k, block)
    pooled: dict[int, Tensor] = {}
    for tile in query_tiles(cu_q, cu_k, block=block, bytes_per_key=4 * q.shape[1] / block):
        sequence = tile.sequence
        if sequence.q_start not in pooled:
            pooled = {sequence.q_start: pool(k[sequence.k_start : sequence.k_stop], block)}
        prefixes = pooled[sequence.q_start]  # [blocks, block, H, Di]
        whole = prefixes[: tile.blocks, -1].permute(1, 2, 0)  # [H, Di, blocks]
        queries = q[tile.rows]
        found = torch.matmul(queries.transpose(0, 1), whole).transpose(0, 1)
        found = hide_future_blocks(found.contiguous(), tile, block)  # [rows, G, blocks]
        own = tile.positions // block
        prefix = prefixes[own, tile.positions % block]  # [rows, H, Di]
        found.scatter_(
            -1,
            own[:, None, None].expand(-1, found.shape[1], 1),
            (queries * prefix).sum(-1, keepdim=True),
        )
        scores[tile.rows, :, : tile.blocks] = found
    return scores
