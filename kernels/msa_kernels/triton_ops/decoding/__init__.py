"""The newest tokens over a paged cache: attention to selected pages, and all of MSA."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, calls_paged, checks
from msa.quantized import output_dtype
from msa_kernels.triton_ops.attention.query_outer import Factors, attend_pages
from msa_kernels.triton_ops.limits import INTERPRETED, require_sizes, require_tensors
from msa_kernels.triton_ops.scoring import check_factors
from msa_kernels.triton_ops.scoring.launching import score_pages
from msa_kernels.triton_ops.selecting import select_of_pages


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

    Reads the selected pages and no others, each query by its own selection; where there are few
    queries the slots of one are split among programs and merged. Not differentiable.

    Args:
        q: ``[B, Q, Hq, D]``; the last query of a request sits on its last key.
        k_pages: ``[P, Hkv, block, D]``, a page holds one block.
        v_pages: ``[P, Hkv, block, D]``.
        selection: int32 ``[B, Q, Hkv, k]``; negative entries are empty, in any place.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the logits.
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys.
        v_descale: float32 ``[Hkv]``, those of the values.

    Returns:
        out ``[B, Q, Hq, D]`` in q's dtype (bfloat16 for E4M3) and LSE float32 ``[B, Q, Hq]``.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls_paged.check_paged(q, k_pages, v_pages, selection, page_table, k_lens, read=INTERPRETED)
    factors = (q_descale, k_descale, v_descale)
    _check_factors(q, k_pages, v_pages, factors)
    checks.require_scale("scale", scale)
    require_tensors(
        q=q,
        k_pages=k_pages,
        v_pages=v_pages,
        selection=selection,
        page_table=page_table,
        k_lens=k_lens,
    )
    require_sizes(
        dim=q.shape[3],
        block=k_pages.shape[2],
        topk=selection.shape[3],
        share=q.shape[2] // k_pages.shape[1],
    )
    return _attend(
        q, k_pages, v_pages, selection, page_table=page_table, k_lens=k_lens, scale=scale,
        factors=factors,
    )  # fmt: skip


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
    """One decode step: scores of the cached index keys, selection, attention.

    What is launched follows from shapes alone, and nothing waits for a GPU: captured in a CUDA
    graph, it follows lengths and page tables that change in place. Not differentiable.

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
        k_descale: float32 ``[Hkv]``, those of the keys.
        v_descale: float32 ``[Hkv]``, those of the values.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys.

    Returns:
        out ``[B, Q, Hq, D]`` in q's dtype (bfloat16 for E4M3) and the selection int32
        ``[B, Q, Hkv, topk]``.

    Raises:
        ValueError: a shape, a length, a size or a budget that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls_paged.check_paged_pipeline(
        q, q_idx, k_pages, v_pages, index_pages, page_table, k_lens, read=INTERPRETED
    )
    factors = (q_descale, k_descale, v_descale)
    _check_factors(q, k_pages, v_pages, factors)
    index_factors = (q_idx_descale, k_idx_descale)
    check_factors(q_idx, index_pages, *index_factors)
    checks.require_budget(topk, local_blocks, sink_blocks)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    for name, x in {"q": q, "q_idx": q_idx}.items() if INTERPRETED else ():
        checks.require_finite(name, x)
    require_tensors(
        q=q,
        q_idx=q_idx,
        k_pages=k_pages,
        v_pages=v_pages,
        index_pages=index_pages,
        page_table=page_table,
        k_lens=k_lens,
    )
    block = k_pages.shape[2]
    require_sizes(
        dim=q.shape[3],
        block=block,
        topk=topk,
        share=q.shape[2] // k_pages.shape[1],
        index_dim=q_idx.shape[3],
    )
    pages = {"page_table": page_table, "k_lens": k_lens}
    # Columns that a query does not see are not written, and the selection does not read them.
    scores = q.new_empty((*q_idx.shape[:3], page_table.shape[1]), dtype=torch.float32)
    score_pages(q_idx, index_pages, scores, **pages, scale=index_scale, factors=index_factors)
    selection = q.new_empty((*q_idx.shape[:3], topk), dtype=torch.int32)
    select_of_pages(
        scores,
        selection,
        k_lens=k_lens,
        block=block,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
    )
    out, _ = _attend(q, k_pages, v_pages, selection, **pages, scale=scale, factors=factors)
    return out, selection


def _check_factors(q: Tensor, k_pages: Tensor, v_pages: Tensor, factors: Factors) -> None:
    calls.check_factors(("q", q, factors[0]), axis=2, read=INTERPRETED)
    calls.check_factors(("k", k_pages, factors[1]), ("v", v_pages, factors[2]), read=INTERPRETED)


def _attend(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
    factors: Factors,
) -> tuple[Tensor, Tensor]:
    out = q.new_empty(q.shape, dtype=output_dtype(q))
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    attend_pages(
        q.flatten(0, 1),
        k_pages,
        v_pages,
        selection.flatten(0, 1),
        out.flatten(0, 1),
        lse.flatten(0, 1),
        page_table=page_table,
        k_lens=k_lens,
        scale=scale,
        factors=factors,
    )
    return out, lse
