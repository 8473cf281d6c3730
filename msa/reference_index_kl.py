"""The specification of the index branch's loss and its gradient, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.attended import attended_rows


def index_kl(
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
    """How far the index branch is from attention, and where its queries and keys should go.

    Per query and group, KL(teacher || student) over the visible tokens of the selected blocks
    (the paper, section 3, training). Teacher: each query head's softmax over that support, averaged
    over the group's heads; a constant. Student: softmax of the token index scores. The loss is the
    mean over all queries and groups; a token's index logit has the gradient student - teacher.

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        selection: int32 ``[Tq, Hkv, k]``; negative entries are empty, in any place.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits, ``D ** -0.5`` in the paper.
        index_scale: factor on the token index scores, ``Di ** -0.5``.

    Returns:
        loss float32 ``[]`` in nats, and its gradients by q_idx and k_idx in their shapes. They are
        float32 (float64 of float64) whatever the inputs: divided by Tq * Hkv they underflow in
        float16. A query that sees nothing adds nothing. Without a query all are 0.
    """
    calls.check_index_kl(q_idx, k_idx, q, k, selection, cu_q, cu_k, block)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    share, wide = q.shape[1] // k.shape[1], torch.float64
    dq, dk = (torch.zeros(x.shape, dtype=wide, device=x.device) for x in (q_idx, k_idx))
    loss, teacher = dq.new_zeros(()), dq.new_zeros(())
    for a in attended_rows(
        q, k, k, selection, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale
    ):  # the heads of a group one after the other
        first, last = a.head % share == 0, a.head % share == share - 1
        teacher = a.weight / share if first else teacher + a.weight / share
        if not last:
            continue
        head = 0 if k_idx.shape[1] == 1 else a.group
        queries, keys = q_idx[a.rows, a.group].double(), k_idx[a.tokens, head].double()
        logits = (queries @ keys.T * index_scale).masked_fill(~a.seen, -torch.inf)
        lse = torch.logsumexp(logits, -1, keepdim=True).nan_to_num(neginf=0.0)
        told = (logits - lse).masked_fill(~a.seen, 0.0)
        student = torch.exp(told).masked_fill(~a.seen, 0.0)
        loss += (torch.xlogy(teacher, teacher) - teacher * told).sum()
        change = (student - teacher) * index_scale
        dq[a.rows, a.group] = change @ keys
        dk[a.tokens, head] += change.T @ queries
    count = max(q_idx.shape[0] * q_idx.shape[1], 1)
    narrow = wide if q_idx.dtype == wide else torch.float32
    return (loss / count).to(narrow), (dq / count).to(narrow), (dk / count).to(narrow)
