"""MiniMax's newer kernels, the package ``inference.msa_v1``, for compute capability 10.0 and 10.3.

From github.com/MiniMax-AI/MSA, distribution ``minimax-msa`` 0.1.0: an indexer and an attention over
pages of 128 tokens, each a wrapper with ``plan`` and ``run``, for prefill and for decoding. What a
run returns is the wrapper's own and overwritten by its next run, so each call makes its wrappers
anew; users of the package keep them for all layers of a step. ``attend`` copies keys, values and
index keys into pages: these copies are this adapter's, not MiniMax's, and in the time of a call.

Only the whole is offered. Its attention wants the query's own block as the last valid entry and
exactly the smaller of 16 and all visible blocks, and for prefill it does not look; its indexer
gives these and tells no scores. So it has neither ``select_blocks`` nor ``sparse_attention`` nor
``sparse_decode`` on a selection that is given, which may hold fewer blocks, or none.

What to know of its results: blocks are ordered by 16 bits of their scores, so any of nearly equal
ones may be selected, and partial sums of prefill are in bfloat16. Kernels that were not built ahead
are only built under FMHA_SM100_ALLOW_JIT=1, and ``attend_paged`` needs flashinfer-python 0.6.17.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from msa.calls import check_pipeline
from msa.calls_paged import check_paged_pipeline
from msa.checks import came
from msa.packing import count_blocks
from msa_kernels.adapters import converting
from msa_kernels.adapters.msa_v1_limits import (
    GROUPS,
    SIZE,
    TOPK,
    require_one_head,
    require_settings,
    require_sizes,
)

_PACKAGE = "inference.msa_v1"
#: Pages of one sequence.
_MOST_PAGES = 8192
#: Queries of a request in one decode step.
_MOST_QUERIES = 16
#: Compute capabilities for which all four wrappers are built.
_DEVICES = ((10, 0), (10, 3))

CAPABILITIES: dict[str, object] = {
    "dtypes": ["bfloat16"],
    "devices": ["cuda"],
    "layouts": ["packed", "paged"],
    "head_dims": [SIZE],
    "index_dims": [SIZE],
    "block_sizes": [SIZE],
    "topk_values": [TOPK],
    "group_sizes": list(GROUPS),
    "nan_scores": False,
    "sink_blocks": False,
    "exact_scores": False,
}
#: Distributions whose code this runs; the record of a run names their versions.
RUNS = ("minimax-msa", "flashinfer-python")


def unavailable() -> str | None:
    """Why it cannot run here, or None."""
    try:
        found = importlib.util.find_spec(_PACKAGE)
    except ImportError:  # without an ``inference``, or with somebody else's module of that name
        found = None
    if found is None:
        return f"wanted the package {_PACKAGE}, got none"
    if why := converting.why_no_gpu(_PACKAGE, {major for major, _ in _DEVICES}):
        return why
    device = torch.cuda.get_device_capability()
    if device not in _DEVICES:
        listed = ", ".join(f"{major}.{minor}" for major, minor in _DEVICES)
        return f"wanted a CUDA device of compute capability {listed}, got {device[0]}.{device[1]}"
    return None


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
    """Its prefill indexer, then its prefill attention, over copies in pages.

    Args:
        q: bfloat16 ``[Tq, Hq, 128]``, 8 or 16 heads per group.
        k: bfloat16 ``[Tk, Hkv, 128]`` with 1, 2 or 4 groups.
        v: like ``k``.
        q_idx: bfloat16 ``[Tq, Hkv, 128]``.
        k_idx: bfloat16 ``[Tk, 1, 128]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``, at most 2**20 keys of one sequence.
        block: 128.
        topk: 16.
        local_blocks: 1.
        sink_blocks: 0.
        scale: factor on the logits, above 0.
        index_scale: above 0, and no more than that: it changes no order, and no score is told.

    Returns:
        out ``[Tq, Hq, 128]`` and the selection int32 ``[Tq, Hkv, 16]``, a query's own block last.

    Raises:
        TypeError: another dtype.
        ValueError: sizes and settings that it is not built for, or that do not fit together.
    """
    check_pipeline(q, k, v, q_idx, k_idx, cu_q, cu_k, quantized=False)
    require_sizes({"q": q, "q_idx": q_idx}, block, k.shape[1])
    require_one_head("k_idx", k_idx)
    require_settings(topk, local_blocks, sink_blocks, scale=scale, index_scale=index_scale)
    lens = converting.lengths(cu_k).tolist()
    if max(lens) > _MOST_PAGES * SIZE:
        raise ValueError(f"cu_k: wanted at most 2**20 keys of one sequence, got {max(lens)}")
    groups = k.shape[1]
    if not len(q):
        return torch.empty_like(q), cu_q.new_empty((0, groups, topk))
    longest = {"max_seqlen_q": converting.longest(cu_q), "max_seqlen_k": max(lens)}
    keys, table = converting.in_pages(k, cu_k, SIZE)
    values, _ = converting.in_pages(v, cu_k, SIZE)
    index_keys, _ = converting.in_pages(k_idx, cu_k, SIZE)
    where = (_aligned(cu_q), _aligned(cu_k), table)
    indexer = _wrapper("indexer.prefill", "BatchPrefillIndexerWithPagedKVCacheWrapper")
    indexer.plan(*where, total_q=len(q), num_index_heads=groups, **longest)
    chosen: Tensor = indexer.run(_aligned(q_idx), index_keys)
    attention = _wrapper("attention.prefill", "BatchPrefillWithPagedKVCacheWrapper")
    attention.plan(
        chosen,
        *where,
        num_q_heads=q.shape[1],
        num_kv_heads=groups,
        total_k=len(k),
        total_rows=sum(count_blocks(n, SIZE) for n in lens),
        causal=True,
        sm_scale=scale,
        **longest,
    )
    return attention.run(_aligned(q), (keys, values)), _rows_first(chosen)


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
    """Its decode indexer, then its decode attention, over the pages of the cache itself.

    Args:
        q: bfloat16 ``[B, Q, Hq, 128]``, up to 16 queries, 8 or 16 heads per group.
        q_idx: bfloat16 ``[B, Q, Hkv, 128]``.
        k_pages: bfloat16 ``[P, Hkv, 128, 128]`` with 1, 2 or 4 groups, heads before tokens.
        v_pages: like ``k_pages``.
        index_pages: bfloat16 ``[P, 1, 128, 128]``.
        page_table: int32 ``[B, W]``, W up to 8192.
        k_lens: int32 ``[B]``.
        topk: 16.
        local_blocks: 1.
        sink_blocks: 0.
        scale: factor on the logits, above 0.
        index_scale: above 0, as in :func:`attend`.

    Returns:
        out ``[B, Q, Hq, 128]`` and the selection int32 ``[B, Q, Hkv, 16]``, the own block last.

    Raises:
        TypeError: another dtype.
        ValueError: sizes and settings that it is not built for, or that do not fit together.
    """
    check_paged_pipeline(q, q_idx, k_pages, v_pages, index_pages, page_table, k_lens)
    groups = k_pages.shape[1]
    # Pages may be in E4M3 beside queries that are not.
    tensors = {"q": q, "q_idx": q_idx, "k_pages": k_pages, "index_pages": index_pages}
    require_sizes(tensors, k_pages.shape[2], groups)
    require_one_head("index_pages", index_pages)
    require_settings(topk, local_blocks, sink_blocks, scale=scale, index_scale=index_scale)
    if page_table.shape[1] > _MOST_PAGES:
        raise ValueError(
            f"page_table: wanted at most {_MOST_PAGES} columns, got {came(page_table)}"
        )
    steps = q.shape[1]
    if steps > _MOST_QUERIES:
        raise ValueError(
            f"q: wanted at most {_MOST_QUERIES} queries of a request, all that its indexer takes, "
            f"got {steps}"
        )
    where = (_aligned(page_table), _aligned(k_lens))
    indexer = _wrapper("indexer.decode", "BatchDecodeIndexerWithPagedKVCacheWrapper")
    indexer.plan(*where, num_index_heads=groups, query_length=steps)
    # Pages of index keys have no axis of heads here; in the prefill indexer they have.
    found: Tensor = indexer.run(_aligned(q_idx), _aligned(index_pages[:, 0]))
    chosen = _rows_first(found)
    attention = _wrapper("attention.decode", "BatchDecodeWithPagedKVCacheWrapper")
    attention.plan(
        chosen,
        *where,
        q_len_per_req=steps,
        num_q_heads=q.shape[2],
        num_kv_heads=groups,
        sm_scale=scale,
    )
    out: Tensor = attention.run(_aligned(q.flatten(0, 1)), (_aligned(k_pages), _aligned(v_pages)))
    return out.view(q.shape), chosen.view(*q_idx.shape[:3], topk)


def _wrapper(where: str, name: str) -> Any:  # noqa: ANN401 - not installed where this is checked
    """A fresh wrapper of the kernels in bfloat16."""
    return getattr(importlib.import_module(f"{_PACKAGE}.{where}.bf16"), name)()


def _aligned(x: Tensor) -> Tensor:
    """Dense and on a border of 16 bytes, as its kernels read everything."""
    dense = x.contiguous()
    return dense.clone() if dense.data_ptr() % 16 else dense


def _rows_first(ids: Tensor) -> Tensor:
    """Ids ``[H, T, 16]`` as a dense ``[T, H, 16]``."""
    return ids.transpose(0, 1).contiguous()
