"""Sparse attention of consecutive queries with a running softmax: any device, any selection."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.fast.scoring import working_dtype
from msa.packing import count_blocks


def membership(selection: Tensor, first: int, block: int) -> Tensor:
    """Which visible blocks each query chose.

    Args:
        selection: int32 ``[n, k]`` of one group; negative entries are empty.
        first: position of the first query.
        block: tokens per block.

    Returns:
        bool ``[n, nb]``, nb the blocks visible to the last query.
    """
    count = len(selection)
    columns = count_blocks(first + count, block)
    local = torch.arange(first, first + count, device=selection.device) // block
    valid = (selection >= 0) & (selection <= local[:, None])
    chosen = torch.zeros((count, columns + 1), dtype=torch.bool, device=selection.device)
    chosen.scatter_(1, torch.where(valid, selection, columns).long(), True)
    return chosen[:, :columns]


def attend_rows(
    q: Tensor, keys: Tensor, values: Tensor, selection: Tensor, first: int, block: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of consecutive queries of one sequence, safe for any selection and any logits.

    Args:
        q: ``[n, Hq, D]``.
        keys: ``[S, Hkv, D]`` of the whole sequence.
        values: ``[S, Hkv, D]``.
        selection: int32 ``[n, Hkv, k]``.
        first: position of the first query.
        block: tokens per block.
        scale: factor on the logits.

    Returns:
        out ``[n, Hq, D]`` in q's dtype and LSE float32 ``[n, Hq]``.
    """
    count, heads, dim = q.shape
    groups = keys.shape[1]
    work = working_dtype(q)
    out = torch.empty((count, heads, dim), dtype=q.dtype, device=q.device)
    lse = torch.empty((count, heads), dtype=torch.float32, device=q.device)
    for g in range(groups):
        mine = slice(g * heads // groups, (g + 1) * heads // groups)
        queries = q[:, mine].to(work) * scale  # [n, R, D]
        top = queries.new_full(queries.shape[:2], -torch.inf)
        total, acc = torch.zeros_like(top), torch.zeros_like(queries)
        chosen = membership(selection[:, g], first, block)
        for b in chosen.any(0).nonzero()[:, 0].tolist():
            rows = chosen[:, b].nonzero()[:, 0]
            stop = min((b + 1) * block, len(keys))
            key, value = (x[b * block : stop, g].to(work) for x in (keys, values))
            logits = queries[rows] @ key.T  # [m, R, block]
            if stop > first + 1:
                at = torch.arange(b * block, stop, device=q.device)
                hidden = at > (first + rows)[:, None]  # [m, block]
                logits.masked_fill_(hidden[:, None], -torch.inf)
                # Slots that nothing reads may hold NaN, and NaN times zero is NaN.
                value = torch.where(hidden.all(0)[:, None], 0.0, value)
            best = torch.maximum(top[rows], logits.amax(-1))
            shift = best.nan_to_num(neginf=0.0, posinf=torch.inf)
            weight = torch.exp(logits - shift[..., None])
            decay = torch.exp(top[rows] - shift)
            total[rows] = total[rows] * decay + weight.sum(-1)
            acc[rows] = acc[rows] * decay[..., None] + weight @ value
            top[rows] = best
        out[:, mine] = (acc / total.clamp_min(torch.finfo(work).tiny)[..., None]).to(q.dtype)
        lse[:, mine] = (top + total.log()).float()
    return out, lse
