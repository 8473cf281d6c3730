"""Attention over blocks that are too small to be worth passes of their own, and its gradients.

Any device, any selection and any logits; so it is also the careful path of large blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msa.fast.pieces import exponentiate
from msa.fast.scoring import working_dtype
from msa.fast.selected import Selected
from msa.fast.threads import large_products
from msa.packing import cumulative


def worth_passes(selection: Tensor, keys: int, block: int, heads: int, dim: int) -> bool:
    """Whether blocks, or the few queries that there are, are better taken one by one.

    Args:
        selection: ``[Tq, Hkv, k]``.
        keys: tokens in all.
        block: tokens per block.
        heads: rows of a product that a query makes.
        dim: channels.
    """
    few = len(selection) * selection.shape[2] * block < keys  # to lay out every block costs more
    return few or large_products(selection, block, heads, dim)


def attend(
    q: Tensor, k: Tensor, v: Tensor, selected: Selected, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of queries over what they selected.

    Args:
        q: ``[n, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        selected: of these queries, in packed sequences of these keys.
        scale: factor on the logits.

    Returns:
        out ``[n, Hq, D]`` and LSE ``[n, Hq]``, in the working dtype.
    """
    wide, groups = working_dtype(q), k.shape[1]
    heads = q.shape[1] // groups
    keys, values = selected.lay_out(k, wide), selected.lay_out(v, wide)
    out = torch.empty_like(q, dtype=wide)
    lse = out.new_empty(q.shape[:2])
    for rows, entries in selected.chunks(heads):
        queries = entries.take(q[rows].to(wide).reshape(-1, heads, q.shape[2]) * scale)
        logits = entries.by_query(queries @ entries.of_tiles(keys).mT, heads)
        seen, unseen = entries.masks(wide)
        logits.add_(unseen)
        del queries, unseen  # nothing below reads them, and the peak is below
        top = logits.amax(-1, keepdim=True)
        weights = exponentiate(logits.sub_(top)).mul_(seen)
        total = weights.sum(-1, keepdim=True)
        # A row with nothing visible has a total of zero: output 0, LSE -inf.
        part = entries.weighted(entries.by_block(weights), entries.of_tiles(values), heads)
        part /= total.clamp_min(torch.finfo(wide).tiny)
        out[rows] = part.view(-1, *q.shape[1:])
        lse[rows] = (top + total.log()).view(-1, q.shape[1])
    return out, lse


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
    seen = first + len(q)
    cu_q, cu_k = (cumulative([n], q.device) for n in (len(q), seen))
    selected = Selected.of(selection[:, None], cu_q=cu_q, cu_k=cu_k, block=block)
    return attend(q, keys[:seen, None], values[:seen, None], selected, scale)


def differentiate(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    selected: Selected,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of attention by its queries, keys and values.

    Arguments as of :func:`msa.fast.backward.sparse_attention_backward`, and what was selected.

    Returns:
        dq, dk and dv in the shapes of q, k and v, in the working dtype.
    """
    wide, groups, dim = working_dtype(q), k.shape[1], q.shape[2]
    heads = q.shape[1] // groups
    keys, values = selected.lay_out(k, wide), selected.lay_out(v, wide)
    dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
    dq = torch.empty_like(q, dtype=wide)
    for rows, entries in selected.chunks(heads):
        queries = entries.take(q[rows].to(wide).reshape(-1, heads, dim) * scale)
        up = dout[rows].to(wide).reshape(-1, heads, dim)
        ups = entries.take(up)
        mean = (up * out[rows].to(wide).reshape(-1, heads, dim)).sum(-1, keepdim=True)
        seen = entries.by_block(entries.seen.to(wide)).view(-1, 1, selected.block)
        key_tiles = entries.of_tiles(keys)
        weights = queries @ key_tiles.mT
        weights.sub_(entries.take(lse[rows].to(wide).reshape(-1, heads, 1)))
        exponentiate(weights).view(-1, heads, selected.block).mul_(seen)
        slopes = (ups @ entries.of_tiles(values).mT).sub_(entries.take(mean)).mul_(weights)
        entries.add_outer(dkeys, slopes, queries)
        entries.add_outer(dvalues, weights, ups)
        dq[rows] = entries.weighted(slopes, key_tiles, heads).view(-1, *q.shape[1:]).mul_(scale)
    return dq, selected.tokens(dkeys), selected.tokens(dvalues)
