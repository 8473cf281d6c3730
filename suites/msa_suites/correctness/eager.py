"""An eager run in low precision: the yardstick of the pass rule, wrong by rounding alone.

Logits, probabilities and outputs are rounded to the inputs' dtype, sums are kept in float32, as an
unfused attention on an accelerator does it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msa.packing import segments


def eager_attention(
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
    """Out ``[Tq, Hq, D]`` in q's dtype, LSE float32 ``[Tq, Hq]``; as in ``msa.reference``."""
    dtype, groups = q.dtype, k.shape[1]
    repeat = q.shape[1] // groups
    out, lse = torch.zeros_like(q), torch.full(q.shape[:2], -torch.inf)
    for s in segments(cu_q, cu_k):
        position = torch.arange(s.k_len)
        seen = position <= s.positions()[:, None]
        for head in range(q.shape[1]):
            group = head // repeat
            mask = selected_tokens(selection[s.q_start : s.q_stop, group], s.k_len, block) & seen
            keys = k[s.k_start : s.k_stop, group].float().nan_to_num()
            values = v[s.k_start : s.k_stop, group].float().nan_to_num()
            logits = (q[s.q_start : s.q_stop, head].float() @ keys.T).to(dtype)
            logits = (logits * scale).masked_fill_(~mask, -torch.inf).float()
            lse[s.q_start : s.q_stop, head] = logits.logsumexp(-1)
            weight = logits.softmax(-1).nan_to_num().to(dtype).float()
            out[s.q_start : s.q_stop, head] = (weight @ values).to(dtype)
    return out, lse


def eager_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv in the inputs' dtype, as in ``msa.reference``; every tile rounded to it."""
    dtype, repeat = q.dtype, q.shape[1] // k.shape[1]
    dq, dk, dv = (torch.zeros(x.shape) for x in (q, k, v))
    for s in segments(cu_q, cu_k):
        seen = torch.arange(s.k_len) <= s.positions()[:, None]
        rows, tokens = slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop)
        for head in range(q.shape[1]):
            group = head // repeat
            mask = selected_tokens(selection[rows, group], s.k_len, block) & seen
            queries, up = q[rows, head].float(), dout[rows, head].float()
            keys, values = k[tokens, group].float(), v[tokens, group].float()
            logits = ((queries @ keys.T).to(dtype) * scale).masked_fill(~mask, -torch.inf)
            weight = logits.float().softmax(-1).nan_to_num().to(dtype).float()
            towards = (up @ values.T).to(dtype).float()
            mean = (weight * towards).sum(-1, keepdim=True)
            change = (weight * (towards - mean) * scale).to(dtype).float()
            dq[rows, head] = change @ keys
            dk[tokens, group] += change.T @ queries
            dv[tokens, group] += weight.T @ up
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


def selected_tokens(selection: Tensor, tokens: int, block: int) -> Tensor:
    """Bool ``[t, tokens]`` of a selection ``[t, k]`` with negative entries for none."""
    columns = -(-tokens // block)
    blocks = torch.zeros(len(selection), columns + 1, dtype=torch.bool)
    blocks.scatter_(1, selection.long().clamp(min=-1) + 1, value=True)
    return blocks[:, 1:].repeat_interleave(block, dim=1)[:, :tokens]
