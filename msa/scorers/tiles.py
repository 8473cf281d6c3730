"""What scorers share: walking over query rows in tiles of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from msa.packing import Segment, block_columns, count_blocks, segments

#: Upper bound on the bytes of one float32 score tile.
TILE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tile:
    """Query rows ``rows`` of one sequence, at ``positions`` among its keys.

    Attributes:
        sequence: the sequence they belong to.
        rows: rows in the packed query tensor.
        positions: int64 ``[rows]``.
        blocks: number of blocks that the last row can see.
        keys: number of keys that the last row can see.
    """

    sequence: Segment
    rows: slice
    positions: Tensor
    blocks: int
    keys: int


def query_tiles(cu_q: Tensor, cu_k: Tensor, *, block: int, bytes_per_key: float) -> Iterator[Tile]:
    """Cut the queries of every sequence into tiles whose scores stay below :data:`TILE_BYTES`.

    Args:
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        bytes_per_key: what one row needs per key of its sequence; a fraction where a block has
            one score for all its keys.
    """
    for sequence in segments(cu_q, cu_k):
        step = max(1, int(TILE_BYTES / max(1.0, bytes_per_key * sequence.k_len)))
        for start in range(0, sequence.q_len, step):
            stop = min(start + step, sequence.q_len)
            keys = sequence.first_position + stop
            yield Tile(
                sequence=sequence,
                rows=slice(sequence.q_start + start, sequence.q_start + stop),
                positions=sequence.positions(cu_q.device)[start:stop],
                blocks=count_blocks(keys, block),
                keys=keys,
            )


def padded_keys(k: Tensor, tile: Tile, block: int) -> Tensor:
    """Keys that a tile can see, float32 ``[H, Di, blocks * block]``, zeros after the last.

    The filled slots lie after every query of the tile, so a causal mask hides them.
    """
    start = tile.sequence.k_start
    keys = k[start : start + tile.keys].float().permute(1, 2, 0)
    return functional.pad(keys, (0, tile.blocks * block - tile.keys))


def hide_future_tokens(token: Tensor, tile: Tile) -> Tensor:
    """Set -inf, in place, on tokens after the query; ``[..., rows, S]``."""
    slots = torch.arange(token.shape[-1], device=token.device)
    return token.masked_fill_(slots > tile.positions[:, None], -torch.inf)


def empty_scores(q: Tensor, groups: int, cu_k: Tensor, block: int) -> Tensor:
    """Scores float32 ``[Tq, groups, NB]`` with nothing visible yet."""
    shape = (len(q), groups, block_columns(cu_k, block))
    return q.new_full(shape, -torch.inf, dtype=torch.float32)


def hide_future_blocks(scores: Tensor, tile: Tile, block: int) -> Tensor:
    """Set -inf, in place, where a block begins after the query; ``[rows, H, blocks]``."""
    ids = torch.arange(scores.shape[-1], device=scores.device)
    future = ids > (tile.positions // block)[:, None]  # [rows, blocks]
    return scores.masked_fill_(future[:, None], -torch.inf)
