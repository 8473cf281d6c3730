"""The whole of MSA on packed sequences, a chunk of queries at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import checks
from msa.fast.portable import attend_rows
from msa.fast.scoring import score_rows
from msa.fast.selecting import select_rows
from msa.packing import segments

#: Queries taken through scores, selection and attention together: bounds the extra memory.
_ROWS = 2048
#: Queries scored together.
_SCORED = 256


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_idx: Tensor,
    k_idx: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
    scale: float,
    index_scale: float,
) -> tuple[Tensor, Tensor]:
    """The whole of MSA: scores, selection, attention.

    Queries pass in chunks, so block scores are never held for all of them.

    Args:
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
        scale: factor on the logits.
        index_scale: factor on the index scores.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype and the selection int32 ``[Tq, Hkv, topk]``.
    """
    selection = torch.full((*q_idx.shape[:2], topk), -1, dtype=torch.int32, device=q_idx.device)
    checks.check_index(q_idx, k_idx, cu_q, cu_k, block)
    checks.require_budget(topk, local_blocks, sink_blocks)
    checks.check_attention(q, k, v, selection, cu_q, cu_k, block)
    checks.require_all_finite(q=q, k=k, v=v, q_idx=q_idx, k_idx=k_idx)
    out = torch.empty_like(q)
    for s in segments(cu_q, cu_k):
        keys, values = k[s.k_start : s.k_stop], v[s.k_start : s.k_stop]
        index_keys = k_idx[s.k_start : s.k_stop]
        for start in range(s.q_start, s.q_stop, _ROWS):
            stop = min(start + _ROWS, s.q_stop)
            for at in range(start, stop, _SCORED):
                rows = slice(at, min(at + _SCORED, stop))
                first = s.first_position + at - s.q_start
                scores = score_rows(q_idx[rows], index_keys, first, block, index_scale)
                local = torch.arange(first, first + len(scores), device=q.device) // block
                selection[rows] = select_rows(scores, local, topk, local_blocks, sink_blocks)
            rows = slice(start, stop)
            first = s.first_position + start - s.q_start
            out[rows], _ = attend_rows(q[rows], keys, values, selection[rows], first, block, scale)
    return out, selection
