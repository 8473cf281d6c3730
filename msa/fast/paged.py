"""Block scores of a cache, and whole decode steps over it."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls_paged, checks, nvfp4
from msa.fast.decoding import sparse_decode
from msa.fast.scoring import score_rows, working_dtype
from msa.fast.selecting import select_rows
from msa.packing import count_blocks
from msa.quantized import NVFP4, decode


@torch.no_grad()
def paged_block_scores(
    q_idx: Tensor,
    index_pages: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> Tensor:
    """The best visible token score of every block of a cache. Not differentiable.

    Reads the pages of a request and no others, one request after the other.

    Args:
        q_idx: index queries ``[B, Q, Hkv, Di]``; the last of a request sits on its last key.
        index_pages: index keys ``[P, 1 or Hkv, block, Di]``, a page holds one block.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the token scores.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 its scales.

    Returns:
        float32 ``[B, Q, Hkv, W]``; -inf where a block has no visible token.

    Raises:
        ValueError: a shape, a length or a scale that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls_paged.check_paged_index(q_idx, index_pages, page_table, k_lens, packed=True)
    checks.require_scale("scale", scale)
    checks.require_descale("k_idx_descale", k_idx_descale, index_pages, axis=1)
    queries = decode("q_idx", q_idx, q_idx_descale, axis=2, dtype=working_dtype(q_idx))
    wide = working_dtype(queries)
    shape = (*q_idx.shape[:3], page_table.shape[1])
    scores = torch.full(shape, -torch.inf, device=q_idx.device)
    block = index_pages.shape[2]
    for b, length in enumerate(k_lens.tolist()):
        used = page_table[b, : count_blocks(length, block)].long()
        keys = _keys(index_pages, k_idx_descale, used, wide)
        packed = keys.transpose(0, 1).flatten(1, 2)  # [H, S, Di]
        found = score_rows(queries[b], packed, length - q_idx.shape[1], block, scale)
        scores[b, ..., : found.shape[2]] = found
    return scores


def _keys(store: Tensor, descale: Tensor | None, pages: Tensor, dtype: torch.dtype) -> Tensor:
    """The index keys of pages ``[n]``: ``[n, H, block, Di]`` in a wide dtype."""
    if store.dtype == NVFP4 and descale is not None:
        found, scales = (x.index_select(0, pages) for x in (store.view(torch.uint8), descale))
        return nvfp4.values(found.view(NVFP4), scales, dtype=dtype)
    found = store.index_select(0, pages).to(dtype)
    return found if descale is None else found.mul_(descale[:, None, None])


@torch.no_grad()
def attend_paged(
    q: Tensor,
    q_idx: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    index_pages: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
    scale: float,
    index_scale: float,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The whole of MSA for the newest tokens over a cache. Not differentiable.

    Args:
        q: ``[B, Q, Hq, D]``; the last query of a request sits on its last key.
        q_idx: index queries ``[B, Q, Hkv, Di]``.
        k_pages: ``[P, Hkv, block, D]``, a page holds one block.
        v_pages: ``[P, Hkv, block, D]``.
        index_pages: index keys ``[P, 1 or Hkv, block, Di]``.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
        scale: factor on the logits.
        index_scale: factor on the token scores.
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 its scales.
        v_descale: float32 ``[Hkv]``, those of the values; of NVFP4 its scales.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 its scales.

    Returns:
        out ``[B, Q, Hq, D]`` in q's dtype (bfloat16 for E4M3) and the selection int32
        ``[B, Q, Hkv, topk]``.

    Raises:
        ValueError: a shape, a length, a budget or a value that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls_paged.check_paged_pipeline(
        q, q_idx, k_pages, v_pages, index_pages, page_table, k_lens, packed=True
    )
    checks.require_budget(topk, local_blocks, sink_blocks)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    checks.require_finite("q", q)
    checks.require_finite("q_idx", q_idx)
    pages = {"page_table": page_table, "k_lens": k_lens}
    scores = paged_block_scores(
        q_idx, index_pages, **pages, scale=index_scale,
        q_idx_descale=q_idx_descale, k_idx_descale=k_idx_descale,
    )  # fmt: skip
    block, queries = k_pages.shape[2], q.shape[1]
    forced = (local_blocks, sink_blocks)
    selection = torch.empty((*q_idx.shape[:3], topk), dtype=torch.int32, device=q.device)
    for b, length in enumerate(k_lens.tolist()):
        local = torch.arange(length - queries, length, device=q.device) // block
        seen = scores[b, ..., : count_blocks(length, block)]
        selection[b] = select_rows(seen, local, topk, *forced)
    out, _ = sparse_decode(
        q, k_pages, v_pages, selection, **pages, scale=scale,
        q_descale=q_descale, k_descale=k_descale, v_descale=v_descale,
    )  # fmt: skip
    return out, selection
