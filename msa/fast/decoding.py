"""Attention of the newest tokens over selected pages of a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls_paged, checks, nvfp4
from msa.fast.scoring import working_dtype
from msa.quantized import NVFP4, decode, output_dtype

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
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
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
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 its scales.
        v_descale: float32 ``[Hkv]``, those of the values; of NVFP4 its scales.

    Returns:
        out ``[B, Q, Hq, D]`` in q's dtype (bfloat16 for E4M3) and LSE float32 ``[B, Q, Hq]``.
    """
    calls_paged.check_paged(q, k_pages, v_pages, selection, page_table, k_lens, packed=True)
    checks.require_scale("scale", scale)
    _, steps, heads, dim = q.shape
    groups, block = k_pages.shape[1:3]
    newest = torch.arange(steps, device=q.device) - steps
    position = (k_lens.to(q.device)[:, None] + newest).repeat_interleave(groups)  # [B * Q * Hkv]
    row = torch.arange(len(position), device=q.device)
    chosen = selection.reshape(len(position), -1)  # [B * Q * Hkv, k]
    valid = (chosen >= 0) & (chosen <= (position // block)[:, None])
    # A selection is a set: of a block that stands there twice the first counts.
    valid &= ~(chosen[:, :, None] == chosen[:, None]).tril_(-1).any(-1)
    ids = torch.where(valid, chosen, 0).long()
    pages = page_table[(row // (steps * groups))[:, None], ids].long()
    checks.require_descale("k_descale", k_descale, k_pages, axis=1)
    checks.require_descale("v_descale", v_descale, v_pages, axis=1)
    wide = decode("q", q, q_descale, axis=2, dtype=working_dtype(q))
    queries = wide.reshape(-1, heads // groups, dim)
    out = torch.empty_like(queries, dtype=output_dtype(q))
    lse = queries.new_empty(queries.shape[:2], dtype=torch.float32)
    # Tokens of a page that a query may read.
    seen = torch.where(valid, position[:, None] + 1 - ids * block, 0).clamp_max(block)
    held = max(_HELD // (ids.shape[1] * block * dim), 1)
    for start in range(0, len(row), held):
        part = slice(start, start + held)
        group = row[part] % groups
        keys = _take(k_pages, k_descale, pages[part], group)
        values = _take(v_pages, v_descale, pages[part], group)
        out[part], lse[part] = _decode_rows(queries[part], keys, values, seen[part], scale)
    return out.view(q.shape), lse.view(q.shape[:3])


def _take(store: Tensor, descale: Tensor | None, pages: Tensor, group: Tensor) -> Tensor:
    """A copy of pages ``[n, k]`` of groups ``[n]``: ``[n, k, block, D]`` in the working dtype."""
    if store.dtype == NVFP4 and descale is not None:
        found, scales = (_copy(x, pages, group) for x in (store.view(torch.uint8), descale))
        return nvfp4.values(found.view(NVFP4), scales, dtype=working_dtype(store))
    found = _copy(store, pages, group).to(working_dtype(store))
    return found if descale is None else found.mul_(descale[group][:, None, None, None])


def _copy(store: Tensor, pages: Tensor, group: Tensor) -> Tensor:
    """Pages ``[n, k]`` of groups ``[n]`` as they are: ``[n, k, block, d]``."""
    if store.is_contiguous():
        flat = pages * store.shape[1] + group[:, None]
        found = store.flatten(0, 1).index_select(0, flat.view(-1))
        return found.view(*pages.shape, *store.shape[2:])
    return store[pages, group[:, None]]


def _decode_rows(
    q: Tensor, keys: Tensor, values: Tensor, seen: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Rows of a query and group each: q ``[n, R, D]``, pages ``[n, k, block, D]``, seen ``[n, k]``.

    ``seen`` counts the tokens of a page that may be read; the rest may hold NaN, and NaN times
    zero is NaN.
    """
    block = keys.shape[2]
    token = torch.arange(block, device=q.device)
    logits = (q.to(keys.dtype) * scale) @ keys.flatten(1, 2).mT  # [n, R, k * block]
    cut = (seen < block).nonzero(as_tuple=True)  # few: mostly the local pages
    if len(cut[0]):
        hidden = token >= seen[cut][:, None]  # [cut, block]
        tiles = logits.view(len(q), -1, *keys.shape[1:3])
        tiles[cut[0], :, cut[1]] = tiles[cut[0], :, cut[1]].masked_fill(hidden[:, None], -torch.inf)
        values[cut] = values[cut].masked_fill(hidden[..., None], 0.0)
    lse = torch.logsumexp(logits, -1)
    weight = logits.sub_(lse.nan_to_num(neginf=0.0)[..., None]).exp_()
    return weight @ values.flatten(1, 2), lse.float()
