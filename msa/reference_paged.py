"""The specification of the operations over a paged cache: its pages as packed sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, calls_paged, checks
from msa.packing import count_blocks, cumulative
from msa.quantized import NVFP4, as_stored
from msa.reference_attention import sparse_attention
from msa.reference_selection import block_scores, select_blocks


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
    """The best visible token score of every block of a cache, for the newest tokens.

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
    """
    calls_paged.check_paged_index(q_idx, index_pages, page_table, k_lens, packed=True)
    checks.require_scale("scale", scale)
    calls.check_factors(("k_idx", index_pages, k_idx_descale))
    lengths = k_lens.tolist()
    found = block_scores(
        q_idx.flatten(0, 1),
        _packed(index_pages, page_table, lengths),
        cu_q=cumulative([q_idx.shape[1]] * len(lengths), q_idx.device),
        cu_k=cumulative(lengths, q_idx.device),
        block=index_pages.shape[2],
        scale=scale,
        q_idx_descale=q_idx_descale,
        k_idx_descale=_factors(index_pages, k_idx_descale, page_table, lengths),
    )
    scores = found.new_full((*found.shape[:2], page_table.shape[1]), -torch.inf)
    scores[..., : found.shape[2]] = found
    return scores.view(*q_idx.shape[:3], -1)


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

    Args:
        q: ``[B, Q, Hq, D]``; the last query of a request sits on its last key.
        k_pages: ``[P, Hkv, block, D]``, a page holds one block.
        v_pages: ``[P, Hkv, block, D]``.
        selection: int32 ``[B, Q, Hkv, k]``.
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
    calls.check_factors(("k", k_pages, k_descale), ("v", v_pages, v_descale))
    lengths = k_lens.tolist()
    out, lse = sparse_attention(
        q.flatten(0, 1),
        _packed(k_pages, page_table, lengths),
        _packed(v_pages, page_table, lengths),
        selection.flatten(0, 1),
        cu_q=cumulative([q.shape[1]] * len(lengths), q.device),
        cu_k=cumulative(lengths, q.device),
        block=k_pages.shape[2],
        scale=scale,
        q_descale=q_descale,
        k_descale=_factors(k_pages, k_descale, page_table, lengths),
        v_descale=_factors(v_pages, v_descale, page_table, lengths),
    )
    return out.view(q.shape), lse.view(q.shape[:3])


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
    """The whole of MSA for the newest tokens over a cache: scores, selection, attention.

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
    selection = select_blocks(
        scores.flatten(0, 1),
        cu_q=cumulative([q.shape[1]] * len(k_lens), q.device),
        cu_k=cumulative(k_lens.tolist(), q.device),
        block=k_pages.shape[2],
        topk=topk,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
    ).unflatten(0, tuple(q.shape[:2]))
    out, _ = sparse_decode(
        q, k_pages, v_pages, selection, **pages, scale=scale,
        q_descale=q_descale, k_descale=k_descale, v_descale=v_descale,
    )  # fmt: skip
    return out, selection


def append_paged(
    k: Tensor,
    v: Tensor,
    k_idx: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    index_pages: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> None:
    """Write the newest ``Q`` tokens of every request into the pages of a cache, in place.

    Args:
        k: ``[B, Q, Hkv, D]``.
        v: ``[B, Q, Hkv, D]``.
        k_idx: index keys ``[B, Q, 1 or Hkv, Di]``.
        k_pages: ``[P, Hkv, block, D]``, in k's dtype or in E4M3; a page holds one block.
        v_pages: ``[P, Hkv, block, D]``, in the dtype of ``k_pages``.
        index_pages: ``[P, 1 or Hkv, block, Di]``, in k_idx's dtype or in E4M3.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the new ones included.
        k_descale: float32 ``[Hkv]``, by which keys are divided before they become E4M3.
        v_descale: float32 ``[Hkv]``, likewise of the values.
        k_idx_descale: float32 ``[1 or Hkv]``, likewise of the index keys.
    """
    factors = (k_descale, v_descale, k_idx_descale)
    pools = (k_pages, v_pages, index_pages)
    calls_paged.check_append(k, v, k_idx, *pools, page_table, k_lens, factors)
    block, queries = k_pages.shape[2], k.shape[1]
    for b, length in enumerate(k_lens.tolist()):
        for i in range(queries):
            at, slot = divmod(length - queries + i, block)
            page = int(page_table[b, at])
            for x, pool, factor in zip((k, v, k_idx), pools, factors, strict=True):
                pool[page, :, slot] = as_stored(x[b, i], pool.dtype, factor)


def _packed(pages: Tensor, page_table: Tensor, lengths: list[int]) -> Tensor:
    """``[P, H, block, d]`` as packed sequences ``[Tk, H, d]``."""
    stored = pages.view(torch.uint8) if pages.dtype == NVFP4 else pages  # which torch can index
    used = (
        stored.index_select(0, page_table[b, : count_blocks(n, pages.shape[2])].long())
        .transpose(1, 2)
        .flatten(0, 1)[:n]
        for b, n in enumerate(lengths)
    )
    return torch.cat(list(used)).view(pages.dtype)


def _factors(
    pages: Tensor, descale: Tensor | None, page_table: Tensor, lengths: list[int]
) -> Tensor | None:
    """Of the packed sequences: those of the heads, or the scales that lie as the pages do."""
    if pages.dtype != NVFP4 or descale is None:
        return descale
    return _packed(descale, page_table, lengths)
