"""A second oracle, in another formulation than :mod:`msa.reference`.

Where the reference masks tokens and loops over queries, this one works on whole padded matrices:
scores by a reduction over a ``[.., blocks, block]`` view, selection by one top-k over scores in
which the forced blocks have been lifted to the top, attention as a dense additive mask that
``scaled_dot_product_attention`` gets in float64. The two share the tensors' layout and no code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def block_scores(
    q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
) -> Tensor:
    """float32 ``[Tq, Hkv, NB]``; shapes and meaning as in ``msa.reference``."""
    columns = math.ceil(int(cu_k.diff().max()) / block)
    parts = []
    for b in range(len(cu_q) - 1):
        queries, keys, hidden = _sequence(q_idx, k_idx, cu_q, cu_k, b)
        token = torch.matmul(queries, keys.mT).mul(scale) + hidden  # [G, t, S]
        padded = functional.pad(token, (0, columns * block - token.shape[-1]), value=-torch.inf)
        parts.append(padded.unflatten(-1, (columns, block)).max(-1).values.transpose(0, 1))
    return torch.cat(parts).float()


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
    """int32 ``[Tq, Hkv, topk]``, ascending, -1 tail."""
    columns = scores.shape[-1]
    lengths = cu_q.diff().long()
    before = (cu_k.diff() - cu_q.diff()).repeat_interleave(lengths)
    row = torch.arange(len(scores)) - cu_q[:-1].long().repeat_interleave(lengths)
    local = ((row + before) // block)[:, None, None]  # [Tq, 1, 1]
    column = torch.arange(columns)
    # Each block's rank: finite scores order themselves, unranked ones tie below, forced above.
    rank = scores.double()
    rank = torch.where(rank.isnan(), -torch.inf, rank)
    order = torch.argsort(rank, dim=-1, descending=True, stable=True)
    place = torch.empty_like(order)
    place.scatter_(-1, order, column.expand_as(order).contiguous())
    place = place.double()
    place = torch.where((column < sink_blocks) | (column > local - local_blocks), -1.0, place)
    place = torch.where(column > local, torch.inf, place).expand_as(rank)
    width = min(topk, columns)
    best = place.topk(width, largest=False)
    chosen = torch.where(best.values.isinf(), columns, best.indices).sort(-1).values
    chosen = functional.pad(chosen, (0, topk - width), value=columns)
    return torch.where(chosen == columns, -1, chosen).to(torch.int32)


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
    """Out ``[Tq, Hq, D]`` in float64 and LSE float32 ``[Tq, Hq]``."""
    parts, sums = [], []
    repeat = q.shape[1] // k.shape[1]
    for b in range(len(cu_q) - 1):
        queries, keys, hidden = _sequence(q, k, cu_q, cu_k, b)
        values = v[cu_k[b] : cu_k[b + 1]].double().transpose(0, 1)
        columns = math.ceil(keys.shape[-2] / block)
        wanted = selection[cu_q[b] : cu_q[b + 1]].transpose(0, 1).long()  # [G, t, k]
        kept = functional.one_hot(wanted.clamp(min=-1) + 1, columns + 1).sum(-2)[..., 1:] > 0
        kept = kept.repeat_interleave(block, -1)[..., : keys.shape[-2]]
        bias = torch.where(kept, 0.0, -torch.inf) + hidden  # [G, t, S]
        bias, keys, values = (x.repeat_interleave(repeat, 0) for x in (bias, keys, values))
        keys, values = keys.nan_to_num(), values.nan_to_num()
        empty = bias.isneginf().all(-1, keepdim=True)
        out = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias.masked_fill(empty, 0.0), scale=scale
        )
        logits = torch.matmul(queries, keys.mT) * scale + bias
        parts.append(out.masked_fill(empty, 0.0).transpose(0, 1))
        sums.append(torch.logsumexp(logits, -1).transpose(0, 1))
    return torch.cat(parts), torch.cat(sums).float()


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, *, cu_q: Tensor, cu_k: Tensor, scale: float
) -> Tensor:
    """Causal attention over everything, ``[Tq, Hq, D]`` in float64: what keep-all must equal."""
    parts = []
    repeat = q.shape[1] // k.shape[1]
    for b in range(len(cu_q) - 1):
        queries, keys, hidden = _sequence(q, k, cu_q, cu_k, b)
        values = v[cu_k[b] : cu_k[b + 1]].double().transpose(0, 1).repeat_interleave(repeat, 0)
        out = functional.scaled_dot_product_attention(
            queries, keys.repeat_interleave(repeat, 0), values, attn_mask=hidden, scale=scale
        )
        parts.append(out.transpose(0, 1))
    return torch.cat(parts)


def _sequence(
    queries: Tensor, keys: Tensor, cu_q: Tensor, cu_k: Tensor, b: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries ``[H, t, D]``, keys ``[H or 1, S, D]``, causal bias ``[t, S]`` of sequence ``b``."""
    mine = queries[cu_q[b] : cu_q[b + 1]].double().transpose(0, 1)
    theirs = keys[cu_k[b] : cu_k[b + 1]].double().transpose(0, 1)
    t, s = mine.shape[1], theirs.shape[1]
    hidden = torch.full((t, s), -torch.inf, dtype=torch.float64).triu(s - t + 1)
    return mine, theirs, hidden
