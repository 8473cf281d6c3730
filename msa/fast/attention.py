"""Sparse attention over packed sequences, key blocks outermost."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import checks
from msa.fast.portable import attend_rows
from msa.packing import segments

#: Query rows whose pairs with blocks are held at a time.
_ROWS = 4096


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Exact softmax attention over the visible tokens of the selected blocks.

    Args:
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        selection: int32 ``[Tq, Hkv, k]``; negative entries are empty, in any place.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits, ``D ** -0.5`` in the paper.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype and LSE float32 ``[Tq, Hq]`` (natural logarithm). A row
        with nothing visible gives 0 and -inf.
    """
    checks.check_attention(q, k, v, selection, cu_q, cu_k, block)
    out = torch.zeros_like(q)
    lse = q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)
    for s in segments(cu_q, cu_k):
        keys, values = k[s.k_start : s.k_stop], v[s.k_start : s.k_stop]
        for start in range(s.q_start, s.q_stop, _ROWS):
            rows = slice(start, min(start + _ROWS, s.q_stop))
            first = s.first_position + start - s.q_start
            out[rows], lse[rows] = attend_rows(
                q[rows], keys, values, selection[rows], first, block, scale
            )
    return out, lse
