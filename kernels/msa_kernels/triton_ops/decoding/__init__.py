"""The newest tokens over a paged cache: attention to selected pages, and all of MSA."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa_kernels.triton_ops.attention.query_outer import attend_pages
from msa_kernels.triton_ops.limits import INTERPRETED, require_sizes, require_tensors
from msa_kernels.triton_ops.scoring import score_pages
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

    Returns:
        out ``[B, Q, Hq, D]`` and LSE float32 ``[B, Q, Hq]``.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_paged(q, k_pages, v_pages, selection, page_table, k_lens, read=INTERPRETED)
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
        q, k_pages, v_pages, selection, page_table=page_table, k_lens=k_lens, scale=scale
    )


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

    Returns:
        out ``[B, Q, Hq, D]`` in q's dtype and the selection int32 ``[B, Q, Hkv, topk]``.

    Raises:
        ValueError: a shape, a length, a size or a budget that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_paged_pipeline(
        q, q_idx, k_pages, v_pages, index_pages, page_table, k_lens, read=INTERPRETED
    )
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
    score_pages(q_idx, index_pages, scores, **pages, scale=index_scale)
    selection = q.new_empty((*q_idx.shape[:3], topk), dtype=torch.int32)
    select_of_pages(
        scores,
        selection,
        k_lens=k_lens,
        block=block,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
    )
    out, _ = _attend(q, k_pages, v_pages, selection, **pages, scale=scale)
    return out, selection


def _attend(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    out = q.new_empty(q.shape)
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
    )
    return out, lse
