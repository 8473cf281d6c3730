"""The index branch's loss and its gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msa import calls, checks
from msa.fast.pieces import LOWEST, exponentiate
from msa.fast.scoring import working_dtype
from msa.fast.selected import Selected

#: The teacher's weights below this change no loss; their logarithm may be -inf.
_LEAST = math.exp(LOWEST)


@torch.no_grad()
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

    The mean over queries and groups of KL(teacher || student) over the visible tokens of the
    selected blocks; what they are says :func:`msa.reference.index_kl`. Every run gives the same
    bits.

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
        loss float32 ``[]`` in nats, and its gradients by q_idx and k_idx in their shapes, float32
        (float64 of a float64 q_idx). A query that sees nothing adds nothing. Without a query all
        are 0.

    Raises:
        ValueError: a shape or a length that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_index_kl(q_idx, k_idx, q, k, selection, cu_q, cu_k, block)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    narrow = working_dtype(q_idx)
    wide = torch.promote_types(narrow, working_dtype(q))
    groups, dim = k.shape[1], q_idx.shape[2]
    heads, count = q.shape[1] // groups, max(len(q) * groups, 1)
    selected = Selected.of(selection, cu_q=cu_q, cu_k=cu_k, block=block)
    keys, index_keys = selected.lay_out(k, wide), selected.lay_out(k_idx, wide)
    dq = q_idx.new_empty(q_idx.shape, dtype=narrow)
    # Groups that share an index key have a part of its gradient each.
    dkeys = index_keys.new_zeros((groups * selected.count + 1, block, dim))
    loss = q.new_zeros((), dtype=torch.float64)
    for rows, entries in selected.chunks(heads):
        seen, unseen = entries.masks(wide)
        queries = entries.take(q[rows].to(wide).reshape(-1, heads, q.shape[2]) * scale)
        logits = entries.by_query(queries @ entries.of_tiles(keys).mT, heads).add_(unseen)
        # A row that sees nothing has weights all the same.
        teacher = torch.softmax(logits, -1).mean(1, keepdim=True).mul_(seen)  # [rows, 1, tokens]
        queries = entries.take(q_idx[rows].to(wide).reshape(-1, 1, dim) * index_scale)
        index_tiles = entries.of_tiles(index_keys)
        logits = entries.by_query(queries @ index_tiles.mT, 1).add_(unseen)
        told = torch.log_softmax(logits, -1)
        loss += teacher.clamp_min(_LEAST).log_().sub_(told).mul_(teacher).sum(-1).sum()
        changes = entries.by_block(exponentiate(told).sub_(teacher).mul_(seen))
        entries.add_outer(dkeys, changes, queries)
        part = entries.weighted(changes, index_tiles, 1).view(-1, groups, dim)
        dq[rows] = (part * (index_scale / count)).to(narrow)
    dk = (selected.tokens(dkeys) / count).to(narrow)
    return (loss / count).to(narrow), dq, dk if k_idx.shape[1] > 1 else dk.sum(1, keepdim=True)
