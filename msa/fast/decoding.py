"""Attention of the newest tokens over selected pages of a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import checks
from msa.fast.scoring import working_dtype


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

    Reads the selected pages and no others, so its time does not grow with the cache.

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
    checks.check_paged(q, k_pages, v_pages, selection, page_table, k_lens)
    out = torch.zeros_like(q)
    lse = q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    for b, length in enumerate(k_lens.tolist()):
        for i in range(q.shape[1]):
            position = length - q.shape[1] + i
            out[b, i], lse[b, i] = _decode_row(
                q[b, i], k_pages, v_pages, selection[b, i], page_table[b], position, scale
            )
    return out, lse


def _decode_row(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    pages: Tensor,
    position: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """One query: out ``[Hq, D]`` in the working dtype, LSE ``[Hq]``."""
    heads, dim = q.shape
    groups, block = k_pages.shape[1:3]
    work = working_dtype(q)
    out = torch.zeros((groups, heads // groups, dim), dtype=work, device=q.device)
    lse = torch.full((groups, heads // groups), -torch.inf, dtype=work, device=q.device)
    tokens = torch.arange(block, device=q.device)
    queries = q.to(work).view(groups, -1, dim) * scale
    for g in range(groups):
        chosen = selection[g][(selection[g] >= 0) & (selection[g] <= position // block)].long()
        if not len(chosen):
            continue
        mine = pages[chosen].long()
        hidden = (chosen[:, None] * block + tokens > position).flatten()  # [k * block]
        key = k_pages[mine, g].to(work).flatten(0, 1)
        value = v_pages[mine, g].to(work).flatten(0, 1)
        logits = (queries[g] @ key.T).masked_fill_(hidden, -torch.inf)
        lse[g] = torch.logsumexp(logits, -1)
        weight = torch.exp(logits - lse[g, :, None])
        # The tail of the last page may hold NaN, and NaN times zero is NaN.
        out[g] = weight @ torch.where(hidden[:, None], 0.0, value)
    return out.flatten(0, 1), lse.flatten().float()
