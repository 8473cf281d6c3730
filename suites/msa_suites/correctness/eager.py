"""An eager run in low precision: the yardstick of the pass rule, wrong by rounding alone.

Logits, probabilities and outputs are rounded to the inputs' dtype, sums are kept in float32, as an
unfused attention on an accelerator does it. In E4M3 only the probabilities are: relative to the
largest of a row and times 256, as kernels for FP8 tensor cores have them (FlashAttention-3, arXiv
2407.08608, section 3.3, keeps them in FP8 too).
"""

from __future__ import annotations

import torch
from torch import Tensor

from msa.packing import segments
from msa.quantized import E4M3

#: Factor on probabilities in E4M3, whose largest value is 448.
_LIFT = 256.0
#: From here on torch multiplies in tiles.
_MANY_ROWS = 16


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
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Out float32 ``[Tq, Hq, D]`` rounded to q's dtype, LSE float32; as in ``msa.reference``.

    The factors of E4M3 elements are put on products, as a kernel does, and not on elements.
    """
    dtype, repeat = q.dtype, q.shape[1] // k.shape[1]
    ones = torch.ones(q.shape[1])
    q_factors, k_factors, v_factors = (
        ones if x is None else x for x in (q_descale, k_descale, v_descale)
    )
    out, lse = torch.zeros(q.shape), torch.full(q.shape[:2], -torch.inf)
    for s in segments(cu_q, cu_k):
        position = torch.arange(s.k_len)
        seen = position <= s.positions()[:, None]
        for head in range(q.shape[1]):
            group = head // repeat
            mask = selected_tokens(selection[s.q_start : s.q_stop, group], s.k_len, block) & seen
            keys = k[s.k_start : s.k_stop, group].float().nan_to_num()
            values = v[s.k_start : s.k_stop, group].float().nan_to_num()
            logits = _product(q[s.q_start : s.q_stop, head].float(), keys)
            logits *= q_factors[head] * k_factors[group]
            logits = (logits if dtype == E4M3 else logits.to(dtype)) * scale
            logits = logits.masked_fill_(~mask, -torch.inf).float()
            lse[s.q_start : s.q_stop, head] = logits.logsumexp(-1)
            out[s.q_start : s.q_stop, head] = _weigh(logits, values, v_factors[group], dtype)
    return out, lse


def _product(queries: Tensor, keys: Tensor) -> Tensor:
    """Float32 ``[t, S]`` of ``[t, D]`` and ``[S, D]``, each row as one of many.

    A product with a few rows is another routine, whose sums are pairwise and more than twice as
    exact as those of any tile: measured by it, right kernels failed in decoding.
    """
    times = -(-_MANY_ROWS // max(len(queries), 1))
    return (queries.repeat(times, 1) @ keys.T)[: len(queries)]


def _weigh(logits: Tensor, values: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Float32 ``[t, D]`` of logits ``[t, S]`` and values ``[S, D]``; a row of -inf gives zeros."""
    if dtype != E4M3:
        weight = logits.softmax(-1).nan_to_num().to(dtype).float()
        return (_product(weight, values.T) * factor).to(dtype).float()
    weight = (logits - logits.amax(-1, keepdim=True)).exp().nan_to_num()
    total = weight.sum(-1, keepdim=True).clamp_min(1e-30)
    rounded = (weight * _LIFT).to(E4M3).float() / _LIFT
    return (_product(rounded, values.T) * factor / total).to(torch.bfloat16).float()


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
            logits = (_product(queries, keys).to(dtype) * scale).masked_fill(~mask, -torch.inf)
            weight = logits.float().softmax(-1).nan_to_num().to(dtype).float()
            towards = _product(up, values).to(dtype).float()
            mean = (weight * towards).sum(-1, keepdim=True)
            change = (weight * (towards - mean) * scale).to(dtype).float()
            dq[rows, head] = _product(change, keys.T)
            dk[tokens, group] += change.T @ queries
            dv[tokens, group] += weight.T @ up
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


def eager_index_kl(
    q_idx: Tensor,
    k_idx: Tensor,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    index_scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients as in ``msa.reference``, float32; logits and weights rounded."""
    dtype, groups = q.dtype, k.shape[1]
    share = q.shape[1] // groups
    loss = torch.zeros(())
    dq, dk = (torch.zeros(x.shape) for x in (q_idx, k_idx))
    for s in segments(cu_q, cu_k):
        seen = torch.arange(s.k_len) <= s.positions()[:, None]
        rows, tokens = slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop)
        for group in range(groups):
            mask = selected_tokens(selection[rows, group], s.k_len, block) & seen
            index_head = 0 if k_idx.shape[1] == 1 else group

            def logits(queries: Tensor, keys: Tensor, factor: float, mask: Tensor) -> Tensor:
                found = _product(queries.float(), keys.float()).to(dtype) * factor
                return found.masked_fill(~mask, -torch.inf).float()

            heads = q[rows, group * share : (group + 1) * share].unbind(1)
            weights = [
                logits(x, k[tokens, group], scale, mask).softmax(-1).nan_to_num().to(dtype).float()
                for x in heads
            ]
            teacher = torch.stack(weights).mean(0)
            queries, keys = q_idx[rows, group], k_idx[tokens, index_head]
            told = logits(queries, keys, index_scale, mask).log_softmax(-1)
            student = told.exp().nan_to_num().to(dtype).float()
            told = told.masked_fill(~mask, 0.0)
            loss += (torch.xlogy(teacher, teacher) - teacher * told).sum()
            change = ((student - teacher) * index_scale).to(dtype).float()
            dq[rows, group] = _product(change, keys.float().T)
            dk[tokens, index_head] += change.T @ queries.float()
    count = max(q_idx.shape[0] * groups, 1)
    return loss / count, dq / count, dk / count


def selected_tokens(selection: Tensor, tokens: int, block: int) -> Tensor:
    """Bool ``[t, tokens]`` of a selection ``[t, k]`` with negative entries for none."""
    columns = -(-tokens // block)
    blocks = torch.zeros(len(selection), columns + 1, dtype=torch.bool)
    blocks.scatter_(1, selection.long().clamp(min=-1) + 1, value=True)
    return blocks[:, 1:].repeat_interleave(block, dim=1)[:, :tokens]
