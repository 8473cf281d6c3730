"""Top-k over block scores, with the forced blocks and an exact rule for ties."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import checks
from msa.packing import segments

#: Rows ranked at a time: bounds the int64 keys.
_ROWS = 4096


def select_blocks(
    scores: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
) -> Tensor:
    """The ``min(topk, visible blocks)`` blocks of every query and group, forced ones first.

    NaN scores rank like -inf; among equal scores the lower block wins.

    Args:
        scores: float32 ``[Tq, Hkv, NB]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.

    Returns:
        int32 ``[Tq, Hkv, topk]``, ascending block ids, then -1.
    """
    checks.check_selecting(scores, cu_q, cu_k, block, topk, local_blocks, sink_blocks)
    selection = torch.full((*scores.shape[:2], topk), -1, dtype=torch.int32, device=scores.device)
    for s in segments(cu_q, cu_k):
        for start in range(s.q_start, s.q_stop, _ROWS):
            stop = min(start + _ROWS, s.q_stop)
            first = s.first_position + start - s.q_start
            local = torch.arange(first, first + stop - start, device=scores.device) // block
            columns = (first + stop - start - 1) // block + 1
            selection[start:stop] = select_rows(
                scores[start:stop, :, :columns], local, topk, local_blocks, sink_blocks
            )
    return selection


def select_rows(
    scores: Tensor, local: Tensor, topk: int, local_blocks: int, sink_blocks: int
) -> Tensor:
    """Rank rows whose newest visible block is known.

    Args:
        scores: float32 ``[n, Hkv, nb]``.
        local: int64 ``[n]``, the block of each query.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.

    Returns:
        int32 ``[n, Hkv, topk]``, ascending block ids, then -1.
    """
    rows, groups, columns = scores.shape
    ids = torch.arange(columns, device=scores.device)
    # Adding 0.0 makes -0.0 equal to 0.0; the xor makes integer order the order of the floats.
    bits = (scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) + 0.0).view(
        torch.int32
    )
    rank = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    mine = local[:, None, None]
    forced = (ids < sink_blocks) | (ids > mine - local_blocks)
    rank = rank.masked_fill(forced, 0x7FFFFFFF).masked_fill(ids > mine, -0x80000000)
    # Block ids fill the lower half, so keys are unique and the lower block wins a tie.
    key = (rank.long() << 32) | (columns - 1 - ids)
    kept = min(topk, columns)
    best = key.topk(kept, dim=-1).indices
    best = torch.where(best <= mine, best, columns).sort(-1).values
    selection = torch.full((rows, groups, topk), -1, dtype=torch.int32, device=scores.device)
    selection[..., :kept] = torch.where(best < columns, best, -1).int()
    return selection
