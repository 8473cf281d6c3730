"""Rows of the specification: which tokens each query sees, and with what weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from msa.packing import count_blocks, segments

#: Query rows whose full score matrix is held at a time.
ROWS = 256


@dataclass(frozen=True, slots=True)
class Attended:
    """Some rows of one head, in float64.

    Attributes:
        rows: packed rows of the queries.
        head: query head.
        group: its KV head.
        tokens: int64 ``[S]``, packed rows of the keys that one of these queries sees.
        queries: ``[t, D]``.
        keys: ``[S, D]``.
        values: ``[S, D]``.
        seen: bool ``[t, S]``, whether a query sees a token.
        weight: softmax over the tokens that a query sees ``[t, S]``; a row of zeros where none.
        lse: ``[t]``, -inf where none.
    """

    rows: slice
    head: int
    group: int
    tokens: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    seen: Tensor
    weight: Tensor
    lse: Tensor


def attended_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> Iterator[Attended]:
    """All rows of all heads, a chunk at a time; arguments as in ``reference.sparse_attention``."""
    groups = k.shape[1]
    share = q.shape[1] // groups
    for s in segments(cu_q, cu_k):
        position = torch.arange(s.k_len, device=q.device)
        blocks = torch.arange(count_blocks(s.k_len, block), device=q.device)
        for start in range(0, s.q_len, ROWS):
            rows = slice(s.q_start + start, min(s.q_start + start + ROWS, s.q_stop))
            mine = s.positions(q.device)[start : start + ROWS]
            for group in range(groups):
                chosen = selection[rows, group]  # [t, k]
                kept = (chosen[:, :, None] == blocks).any(1)[:, position // block]  # [t, S]
                kept &= position <= mine[:, None]
                # Slots that are not read may hold NaN, and NaN times zero is NaN.
                read = kept.any(0)
                tokens, seen = s.k_start + position[read], kept[:, read]
                keys, values = (x[tokens, group].double() for x in (k, v))
                for head in range(group * share, (group + 1) * share):
                    queries = q[rows, head].double()
                    logits = (queries @ keys.T * scale).masked_fill_(~seen, -torch.inf)
                    lse = torch.logsumexp(logits, -1)
                    weight = torch.exp(logits - lse.nan_to_num(neginf=0.0)[:, None])
                    yield Attended(
                        rows, head, group, tokens, queries, keys, values, seen, weight, lse
                    )
