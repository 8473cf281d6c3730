"""Sparse attention of consecutive queries with a running softmax: any device, any selection."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.fast.lists import membership, query_lists
from msa.fast.scoring import working_dtype


def attend_rows(
    q: Tensor, keys: Tensor, values: Tensor, selection: Tensor, first: int, block: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of consecutive queries of one group, safe for any selection and any logits.

    Args:
        q: ``[n, R, D]``, the heads of the group.
        keys: ``[S, D]`` of the whole sequence.
        values: ``[S, D]``.
        selection: int32 ``[n, k]``.
        first: position of the first query.
        block: tokens per block.
        scale: factor on the logits.

    Returns:
        out ``[n, R, D]`` and LSE ``[n, R]``, in the working dtype.
    """
    work = working_dtype(q)
    queries = q.to(work) * scale
    top = queries.new_full(queries.shape[:2], -torch.inf)
    total, acc = torch.zeros_like(top), torch.zeros_like(queries)
    for b, rows in query_lists(membership(selection, first, block)):
        stop = min((b + 1) * block, len(keys))
        key, value = (x[b * block : stop].to(work) for x in (keys, values))
        logits = queries[rows] @ key.T  # [m, R, block]
        if stop > first + 1:
            at = torch.arange(b * block, stop, device=q.device)
            hidden = at > (first + rows)[:, None]  # [m, block]
            logits.masked_fill_(hidden[:, None], -torch.inf)
            # Slots that nothing reads may hold NaN, and NaN times zero is NaN.
            value = value.masked_fill(hidden.all(0)[:, None], 0.0)
        best = torch.maximum(top[rows], logits.amax(-1))
        weight = torch.exp(logits - best[..., None])
        decay = torch.exp(top[rows] - best)
        total[rows] = total[rows] * decay + weight.sum(-1)
        acc[rows] = acc[rows] * decay[..., None] + weight @ value
        top[rows] = best
    # A row with nothing visible has a total of zero: output 0, LSE -inf.
    out = acc / total.clamp_min(torch.finfo(work).tiny)[..., None]
    return out, top + total.log()
