"""Attention of the newest tokens over selected pages of a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import checks
from msa.fast.scoring import working_dtype

#: Elements of gathered keys held at a time.
_HELD = 1 << 24


@torch.no_grad()
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

    Reads the selected pages and no others, so its time does not grow with the cache. Not
    differentiable.

    Args:
        q: ``[B, Q, Hq, D]``; the last query of a request sits on its last key.
        k_pages: ``[P, Hkv, block, D]``, a page holds one block.
        v_pages: ``[P, Hkv, block, D]``.
        selection: int32 ``[B, Q, Hkv, k]``; negative entries are empty, in any place.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the logits.

    Returns:
        out ``[B, Q, Hq, D]`` and LSE float32 ``[B, Q, Hq]``.
    """
    checks.check_paged(q, k_pages, v_pages, selection, page_table, k_lens)
    batch, steps, heads, dim = q.shape
    groups, block = k_pages.shape[1:3]
    newest = torch.arange(steps, device=q.device) - steps
    position = (k_lens.to(q.device)[:, None] + newest).repeat_interleave(groups)  # [B * Q * Hkv]
    group = torch.arange(groups, device=q.device).repeat(batch * steps)
    chosen = selection.reshape(-1, selection.shape[-1])  # [B * Q * Hkv, k]
    valid = (chosen >= 0) & (chosen <= (position // block)[:, None])
    ids = torch.where(valid, chosen, 0).long()
    pages = page_table.long().repeat_interleave(steps * groups, 0).gather(1, ids)
    queries = q.reshape(-1, heads // groups, dim)
    out = torch.empty_like(queries)
    lse = queries.new_empty(queries.shape[:2], dtype=torch.float32)
    hidden = ids[..., None] * block + torch.arange(block, device=q.device) > position[:, None, None]
    hidden |= ~valid[..., None]  # [B * Q * Hkv, k, block]
    held = max(_HELD // (ids.shape[1] * block * dim), 1)
    for start in range(0, len(ids), held):
        rows = slice(start, start + held)
        out[rows], lse[rows] = _decode_rows(
            queries[rows], k_pages, v_pages, pages[rows], group[rows], hidden[rows], scale
        )
    return out.view_as(q), lse.view(q.shape[:3])


def _decode_rows(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    pages: Tensor,
    group: Tensor,
    hidden: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Rows of one query and group each: q ``[n, R, D]``, pages ``[n, k]``, group ``[n]``."""
    work = working_dtype(q)
    keys = k_pages[pages, group[:, None]].to(work).flatten(1, 2)  # [n, k * block, D]
    values = v_pages[pages, group[:, None]].to(work).flatten(1, 2)
    unread = hidden.flatten(1)
    logits = (q.to(work) * scale) @ keys.mT  # [n, R, k * block]
    logits.masked_fill_(unread[:, None], -torch.inf)
    lse = torch.logsumexp(logits, -1)
    weight = logits.sub_(lse.nan_to_num(neginf=0.0)[..., None]).exp_()
    # Slots that are not read may hold NaN, and NaN times zero is NaN.
    return (weight @ values.masked_fill_(unread[..., None], 0.0)).to(q.dtype), lse.float()
