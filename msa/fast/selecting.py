"""Top-k over block scores, with the forced blocks and an exact rule for ties."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls
from msa.fast.scoring import cut_rows
from msa.fast.threads import for_each
from msa.packing import segments

#: Ranks above and below those of all scores, NaN excepted, which is ranked like -inf.
_FORCED, _HIDDEN = 0x7FFFFFFF, -0x80000000
#: Rows ranked together, and scores below which threads cost more than they bring.
_ROWS = 512
_WORTH_THREADS = 1 << 19


@torch.no_grad()
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
    calls.check_selecting(scores, cu_q, cu_k, block, topk, local_blocks, sink_blocks)
    selection = torch.full((*scores.shape[:2], topk), -1, dtype=torch.int32, device=scores.device)
    for s in segments(cu_q, cu_k):
        offset = s.first_position - s.q_start

        def fill(rows: tuple[int, int], offset: int = offset) -> None:
            start, stop = rows
            local = torch.arange(start + offset, stop + offset, device=scores.device) // block
            columns = (stop + offset - 1) // block + 1
            selection[start:stop] = select_rows(
                scores[start:stop, :, :columns], local, topk, local_blocks, sink_blocks
            )

        size = s.q_len * scores.shape[1] * scores.shape[2]
        spread = scores.device.type == "cpu" and size > _WORTH_THREADS
        for_each(fill, cut_rows(s, _ROWS), spread=spread)
    return selection


def select_rows(
    scores: Tensor, local: Tensor, topk: int, local_blocks: int, sink_blocks: int
) -> Tensor:
    """Rank rows whose newest visible block is known.

    Args:
        scores: float32 ``[n, Hkv, nb]``, nb one more than the last of ``local``.
        local: int64 ``[n]``, the block of each query, ascending.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.

    Returns:
        int32 ``[n, Hkv, topk]``, ascending block ids, then -1.
    """
    rows, groups, columns = scores.shape
    kept = min(topk, columns)
    newest = torch.arange(columns, device=scores.device)  # [nb]
    mine = local[:, None, None]
    if columns == kept:
        best = newest.expand(rows, groups, -1)
    else:
        best = _best(scores, local, kept, local_blocks, sink_blocks)
        # Columns past a row's own block sort behind the visible ones.
        best = best.where(best <= mine, columns).int().sort(-1).values
    selection = torch.full((rows, groups, topk), -1, dtype=torch.int32, device=scores.device)
    selection[..., :kept] = best.where(best <= mine, -1)
    return selection


def _best(scores: Tensor, local: Tensor, kept: int, local_blocks: int, sink_blocks: int) -> Tensor:
    """Column numbers ``[n, Hkv, kept]`` in any order; ``kept`` below the number of columns.

    Scores are ranked as integers of the same order: they compare faster than floats, and leave
    room above every score for the forced blocks and below it for the hidden ones.
    """
    columns = scores.shape[-1]
    ids = torch.arange(columns, device=scores.device)
    mine = local[:, None, None]
    # Adding 0.0 makes -0.0 equal to 0.0 before the bits are read.
    bits = (
        scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        .add_(0.0)
        .view(torch.int32)
    )
    rank = bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
    recent = max(int(local[0]) - local_blocks + 1, 0)  # masks touch only the two ends
    for part in (slice(0, sink_blocks), slice(recent, columns)):
        forced = (ids[part] < sink_blocks) | (ids[part] > mine - local_blocks)
        rank[..., part].masked_fill_(forced, _FORCED).masked_fill_(ids[part] > mine, _HIDDEN)
    values, best = rank.topk(kept + 1, dim=-1)
    best = best[..., :kept]
    # Which of several equal ranks topk takes is not defined; it matters at the edge only.
    tied = (values[..., kept - 1] == values[..., kept]) & (values[..., kept] > _HIDDEN)
    if bool(tied.any()):
        row, group = tied.nonzero(as_tuple=True)
        # With the block id in the lower half no two keys are equal, and the lower block wins.
        key = (rank[row, group].long() << 32) | (columns - 1 - ids)
        best[row, group] = key.topk(kept, dim=-1).indices
    return best
