"""vLLM's Triton kernels for MiniMax-M3, ``vllm.models.minimax_m3.common.ops``, as of vLLM 0.33.0.

They read pages of 128 tokens and nothing else. So the packed operations copy the keys into pages,
and ``sparse_decode`` copies the pages of keys and of values side by side, as vLLM's cache has them:
these copies are this adapter's, not vLLM's, and they are in the time of a call.

What vLLM has not: an LSE, and queries in E4M3. It takes keys and values in E4M3 with a factor for
each head, but capabilities cannot name the one without the other, so E4M3 is not declared. 128
channels are the width that its attention backend names; its kernels may take others.
"""

from __future__ import annotations

import importlib.metadata
import re

import torch
from torch import Tensor

from msa.calls import check_attention
from msa.calls_paged import check_paged
from msa_kernels.adapters import composing, converting
from msa_kernels.adapters.vllm_scores import (
    SIZE,
    as_packed,
    block_scores,
    chunks,
    ops,
    paged_block_scores,
    require_few,
    require_sizes,
    select_blocks,
)

__all__ = [
    "CAPABILITIES",
    "RUNS",
    "attend",
    "block_scores",
    "paged_block_scores",
    "select_blocks",
    "sparse_attention",
    "sparse_decode",
    "unavailable",
]

CAPABILITIES: dict[str, object] = {
    "dtypes": ["float16", "bfloat16"],
    "devices": ["cuda"],
    "layouts": ["packed", "paged"],
    "head_dims": [SIZE],
    "index_dims": [SIZE],
    "block_sizes": [SIZE],
    "nan_scores": False,
    "sink_blocks": True,
    "exact_scores": True,
}
#: Distributions whose code this runs; the record of a run names their versions.
RUNS = ("vllm",)


def unavailable() -> str | None:
    """Why it cannot run here, or None."""
    if why := converting.why_no_gpu("vllm", (8, 9, 10, 12)):
        return why
    try:
        version = importlib.metadata.version(*RUNS)
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    # Before, tokens stood before heads in the cache.
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < (0, 33):
        return f"wanted vllm 0.33 or newer, got {version}"
    return None


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
) -> tuple[Tensor, None]:
    """Attention by ``minimax_m3_sparse_attn`` over a copy of keys and values in pages.

    Of each row it reads as many entries as the query sees blocks, without looking for -1. So an
    empty entry is made a block behind the end, whose tokens it masks without reading them. A row
    of such entries alone, which vLLM has not, comes back NaN and is set to 0.

    Args:
        q: float16 or bfloat16 ``[Tq, Hq, 128]``.
        k: like ``q``, ``[Tk, Hkv, 128]``.
        v: like ``k``.
        selection: int32 ``[Tq, Hkv, k]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: 128.
        scale: factor on the logits.

    Returns:
        out ``[Tq, Hq, 128]`` in q's dtype and no LSE.

    Raises:
        TypeError: another dtype.
        ValueError: other sizes, or 2**31 elements of queries and more.
    """
    check_attention(q, k, v, selection, cu_q, cu_k, block, quantized=False)
    require_sizes(block, q=q)
    require_few("q", q.numel())
    cache, table = converting.in_pages(torch.cat([k, v], -1), cu_k, block)
    kept = converting.without_hidden(selection, cu_q, cu_k, block)
    out = q.new_empty(q.shape)
    ops().minimax_m3_sparse_attn(
        q=q,
        kv_cache=cache,
        topk_idx=torch.where(kept < 0, table.shape[1], kept).transpose(0, 1),
        # The column of the block behind the end.
        block_table=torch.nn.functional.pad(table, (0, 1)),
        seq_lens=converting.lengths(cu_k),
        num_kv_heads=k.shape[1],
        sm_scale=float(scale),
        output=out,
        **chunks(cu_q, cu_k),
    )
    return _zeroed(out, kept), None


def sparse_decode(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
) -> tuple[Tensor, None]:
    """Attention by ``minimax_m3_sparse_attn_decode`` over a copy of all pages.

    It passes over a -1, but reads no more entries than the query sees blocks: blocks of the future
    are taken out before. A row without any block comes back NaN and is set to 0.

    Args:
        q: float16 or bfloat16 ``[B, Q, Hq, 128]``.
        k_pages: like ``q``, ``[P, Hkv, 128, 128]``.
        v_pages: like ``k_pages``.
        selection: int32 ``[B, Q, Hkv, k]``.
        page_table: int32 ``[B, W]``.
        k_lens: int32 ``[B]``.
        scale: factor on the logits.

    Returns:
        out ``[B, Q, Hq, 128]`` in q's dtype and no LSE.

    Raises:
        TypeError: another dtype.
        ValueError: other sizes.
    """
    check_paged(q, k_pages, v_pages, selection, page_table, k_lens)
    require_sizes(k_pages.shape[2], q=q, k_pages=k_pages)
    cu_q, cu_k = as_packed(q, k_lens)
    kept = converting.without_hidden(selection.flatten(0, 1), cu_q, cu_k, SIZE)
    queries = q.flatten(0, 1)
    out = queries.new_empty(queries.shape)
    ops().minimax_m3_sparse_attn_decode(
        q=queries,
        kv_cache=torch.cat([k_pages, v_pages], -1),
        topk_idx=kept.transpose(0, 1),
        block_table=page_table.contiguous(),
        seq_lens=k_lens.contiguous(),
        num_kv_heads=k_pages.shape[1],
        sm_scale=float(scale),
        output=out,
        decode_query_len=q.shape[1],
    )
    return _zeroed(out, kept).view(q.shape), None


#: The three above; arguments and results of the contract.
attend = composing.one_after_the_other(block_scores, select_blocks, sparse_attention)


def _zeroed(out: Tensor, kept: Tensor) -> Tensor:
    """``out [T, Hq, D]`` with 0 in rows of which ``kept [T, Hkv, k]`` has no block."""
    empty = (kept[..., 0] < 0).repeat_interleave(out.shape[1] // kept.shape[1], 1)
    return out.masked_fill_(empty[..., None], 0.0)
