"""The specification of MSA: short, slow, in float64, one function per operation.

Nothing here is clever. Every fast implementation is judged against these functions, so each
follows the definition word for word: token scores, causal mask per token, maximum per block,
forced blocks, top-k, exact softmax over the visible tokens of the selected blocks (the paper,
section 3). Shapes, packing and conventions are those of :mod:`msa.packing`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.attended import ROWS, attended_rows
from msa.packing import block_columns, count_blocks, cumulative, segments
from msa.reference_backward import sparse_attention_backward
from msa.reference_index_kl import index_kl

__all__ = [
    "CAPABILITIES",
    "attend",
    "block_scores",
    "combine",
    "index_kl",
    "select_blocks",
    "sparse_attention",
    "sparse_attention_backward",
    "sparse_decode",
]

CAPABILITIES: dict[str, object] = {
    "dtypes": ["float32", "float16", "bfloat16", "float64"],
    "devices": ["cpu", "cuda"],
    "layouts": ["packed", "paged"],
    "nan_scores": True,
    "tie_rule": "lower block first",
    "sink_blocks": True,
    "exact_scores": True,
}


def block_scores(
    q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
) -> Tensor:
    """The best visible token score of every key block.

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the token scores, ``Di ** -0.5`` in the paper.

    Returns:
        float32 ``[Tq, Hkv, NB]``; -inf where a block has no visible token.
    """
    calls.check_index(q_idx, k_idx, cu_q, cu_k, block)
    checks.require_scale("scale", scale)
    groups, columns = q_idx.shape[1], block_columns(cu_k, block)
    scores = q_idx.new_full((q_idx.shape[0], groups, columns), -torch.inf, dtype=torch.float32)
    for s in segments(cu_q, cu_k):
        keys = k_idx[s.k_start : s.k_stop].double().expand(-1, groups, -1)
        position = torch.arange(s.k_len, device=q_idx.device)
        for start in range(0, s.q_len, ROWS):
            rows = slice(s.q_start + start, min(s.q_start + start + ROWS, s.q_stop))
            mine = s.positions(q_idx.device)[start : start + ROWS]
            token = torch.einsum("tgd,sgd->tgs", q_idx[rows].double(), keys) * scale
            token.masked_fill_((position > mine[:, None])[:, None], -torch.inf)
            for b in range(count_blocks(s.k_len, block)):
                best = token[..., b * block : (b + 1) * block].amax(-1)
                scores[rows, :, b] = best.float()
    return scores


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
    """The ``min(topk, visible blocks)`` blocks of every query and group, forced ones first.

    Visibility follows from positions, not from scores: a NaN score ranks last, like -inf. Among
    equal scores the lower block wins.

    Args:
        scores: float32 ``[Tq, Hkv, NB]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.

    Returns:
        int32 ``[Tq, Hkv, topk]``, ascending block ids, then -1.
    """
    calls.check_selecting(scores, cu_q, cu_k, block, topk, local_blocks, sink_blocks)
    selection = torch.full((*scores.shape[:2], topk), -1, dtype=torch.int32, device=scores.device)
    for s in segments(cu_q, cu_k):
        for row in range(s.q_start, s.q_stop):
            local = (s.first_position + row - s.q_start) // block
            ranked = (
                scores[row, :, : local + 1]
                .double()
                .nan_to_num(nan=-torch.inf, neginf=-torch.inf, posinf=torch.inf)
            )
            order = torch.argsort(ranked, dim=-1, descending=True, stable=True)
            forced = {b for b in range(local + 1) if b < sink_blocks or b > local - local_blocks}
            chosen = []
            for best_first in order.tolist():  # of every group
                rest = [b for b in best_first if b not in forced]
                kept = sorted([*forced, *rest][:topk])
                chosen.append(kept + [-1] * (topk - len(kept)))
            selection[row] = torch.tensor(chosen, dtype=torch.int32)
    return selection


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
    calls.check_attention(q, k, v, selection, cu_q, cu_k, block)
    checks.require_scale("scale", scale)
    out = torch.zeros_like(q)
    lse = q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)
    packing = {"cu_q": cu_q, "cu_k": cu_k}
    for a in attended_rows(q, k, v, selection, **packing, block=block, scale=scale):
        out[a.rows, a.head] = (a.weight @ a.values).to(q.dtype)
        lse[a.rows, a.head] = a.lse.float()
    return out, lse


def sparse_decode(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention of the newest ``Q`` tokens of every request over selected pages of the cache.

    Args:
        q: ``[B, Q, Hq, D]``; the last query of a request sits on its last key.
        k_pages: ``[P, Hkv, block, D]``, a page holds one block.
        v_pages: ``[P, Hkv, block, D]``.
        selection: int32 ``[B, Q, Hkv, k]``.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the logits.

    Returns:
        out ``[B, Q, Hq, D]`` and LSE float32 ``[B, Q, Hq]``.
    """
    calls.check_paged(q, k_pages, v_pages, selection, page_table, k_lens)
    checks.require_scale("scale", scale)
    block = k_pages.shape[2]
    lengths = [int(n) for n in k_lens]
    keys, values = (
        torch.cat(
            [
                pages[page_table[b, : count_blocks(n, block)].long()]
                .transpose(1, 2)
                .flatten(0, 1)[:n]
                for b, n in enumerate(lengths)
            ]
        )
        for pages in (k_pages, v_pages)
    )
    out, lse = sparse_attention(
        q.flatten(0, 1),
        keys,
        values,
        selection.flatten(0, 1),
        cu_q=cumulative([q.shape[1]] * len(lengths), q.device),
        cu_k=cumulative(lengths, q.device),
        block=block,
        scale=scale,
    )
    return out.view_as(q), lse.view(q.shape[:3])


def combine(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Merge ``n`` partial attentions over disjoint keys.

    Args:
        outs: float32 ``[n, Tq, Hq, D]``, each normalised by itself.
        lses: float32 ``[n, Tq, Hq]``; -inf marks an empty part, whose output is not read.

    Returns:
        out float32 ``[Tq, Hq, D]`` and LSE float32 ``[Tq, Hq]``.
    """
    calls.check_partials(outs, lses)
    parts = lses.double()
    total = torch.logsumexp(parts, 0)
    weight = torch.exp(parts - total.nan_to_num(neginf=0.0))[..., None]
    out = torch.where(weight > 0, outs.double() * weight, 0.0).sum(0)
    return out.float(), total.float()


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
    """The whole of MSA: scores, selection, attention. Returns (out, selection)."""
    calls.check_pipeline(q, k, v, q_idx, k_idx, cu_q, cu_k)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    for name, x in {"q": q, "k": k, "v": v, "q_idx": q_idx, "k_idx": k_idx}.items():
        checks.require_finite(name, x)
    scores = block_scores(q_idx, k_idx, cu_q=cu_q, cu_k=cu_k, block=block, scale=index_scale)
    selection = select_blocks(
        scores,
        cu_q=cu_q,
        cu_k=cu_k,
        block=block,
        topk=topk,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
    )
    out, _ = sparse_attention(q, k, v, selection, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale)
    return out, selection
