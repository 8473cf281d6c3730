"""The index branch by vLLM's Triton kernels; ``vllm_msa`` has the whole.

Its kernels give products without a scale, which is put on afterwards, and write only the blocks
that a tile of queries sees: the rest of a score buffer is whatever stood there.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from msa.calls import check_index, check_selecting
from msa.calls_paged import check_paged_index
from msa.checks import came
from msa.packing import block_columns
from msa_kernels.adapters import converting

#: Tokens of a page and of a block, and channels of a head.
SIZE = 128
_DTYPES = (torch.float16, torch.bfloat16)
#: Half of the widest tile that its selector sorts.
_MOST_TOPK = 1024
_FEW = 2**31


def ops() -> Any:  # noqa: ANN401 - not installed where this is checked
    """vLLM's module of kernels."""
    return importlib.import_module("vllm.models.minimax_m3.common.ops")


def block_scores(
    q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
) -> Tensor:
    """Scores by ``minimax_m3_index_score`` over a copy of the index keys in pages.

    It knows one key head: where each group has its own, each is a call.

    Args:
        q_idx: float16 or bfloat16 ``[Tq, Hkv, 128]``.
        k_idx: like ``q_idx``, ``[Tk, 1 or Hkv, 128]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: 128.
        scale: factor on the products, above 0.

    Returns:
        float32 ``[Tq, Hkv, NB]``, -inf where nothing is visible.

    Raises:
        TypeError: another dtype.
        ValueError: other sizes or scales, or 2**31 scores and more.
    """
    check_index(q_idx, k_idx, cu_q, cu_k, block, quantized=False)
    require_sizes(block, q_idx=q_idx)
    converting.above_zero(scale)
    columns = block_columns(cu_k, block)
    # Its buffer is wider by up to 15 columns.
    require_few("scores", len(q_idx) * q_idx.shape[1] * (columns + 15))
    pages, table = converting.in_pages(k_idx, cu_k, block)
    together = q_idx.shape[1] // k_idx.shape[1]
    parts = [
        ops().minimax_m3_index_score(
            idx_q=part,
            index_kv_cache=pages[:, i],
            block_table=table,
            seq_lens=converting.lengths(cu_k),
            max_seq_len=converting.longest(cu_k),
            num_kv_heads=together,
            **chunks(cu_q, cu_k),
        )
        for i, part in enumerate(q_idx.split(together, 1))
    ]
    return _visible(torch.cat(parts), cu_q, cu_k, columns, scale)


def paged_block_scores(
    q_idx: Tensor, index_pages: Tensor, *, page_table: Tensor, k_lens: Tensor, scale: float
) -> Tensor:
    """Scores of a cache by ``minimax_m3_index_decode_score``, with no block forced and no copy.

    It knows one key head and takes a power of two of groups; anything else is a call per group.

    Args:
        q_idx: float16 or bfloat16 ``[B, Q, Hkv, 128]``.
        index_pages: like ``q_idx``, ``[P, 1 or Hkv, 128, 128]``.
        page_table: int32 ``[B, W]``.
        k_lens: int32 ``[B]``.
        scale: factor on the products, above 0.

    Returns:
        float32 ``[B, Q, Hkv, W]``, -inf where nothing is visible.

    Raises:
        TypeError: another dtype.
        ValueError: other sizes or scales, or 2**31 scores and more.
    """
    check_paged_index(q_idx, index_pages, page_table, k_lens)
    require_sizes(index_pages.shape[2], q_idx=q_idx, index_pages=index_pages)
    converting.above_zero(scale)
    requests, queries, groups = q_idx.shape[:3]
    heads, columns = index_pages.shape[1], page_table.shape[1]
    require_few("scores", requests * queries * groups * (columns + 15))
    together = 1 if heads > 1 or groups & (groups - 1) else groups
    parts = [
        ops().minimax_m3_index_decode_score(
            idx_q=part,
            index_kv_cache=index_pages[:, i % heads],
            block_table=page_table.contiguous(),
            seq_lens=k_lens.contiguous(),
            max_seq_len=columns * SIZE,
            init_blocks=0,
            local_blocks=0,
            num_kv_heads=together,
            decode_query_len=queries,
            max_decode_query_len=queries,
        )
        for i, part in enumerate(q_idx.flatten(0, 1).split(together, 1))
    ]
    cu_q, cu_k = as_packed(q_idx, k_lens)
    scores: Tensor = _visible(torch.cat(parts), cu_q, cu_k, columns, scale)
    return scores.view(requests, queries, groups, columns)


def select_blocks(
    scores: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
) -> Tensor:
    """Selection by ``minimax_m3_index_topk``; any of equal blocks may be kept.

    Args:
        scores: float32 ``[Tq, Hkv, NB]``, neither NaN nor beyond 1e29 where a block is visible: it
            marks forced and missing blocks by such scores.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: 128.
        topk: at most 1024.
        local_blocks: newest blocks of each query that are kept.
        sink_blocks: first blocks that are kept.

    Returns:
        int32 ``[Tq, Hkv, topk]`` by descending score, forced blocks first, then -1.

    Raises:
        ValueError: another block, more slots, 2**31 scores and more, shapes that do not fit.
    """
    check_selecting(scores, cu_q, cu_k, block, topk, local_blocks, sink_blocks)
    require_sizes(block)
    require_few("scores", scores.numel())
    if topk > _MOST_TOPK:
        raise ValueError(f"topk: wanted at most {_MOST_TOPK}, got {topk}")
    ids = ops().minimax_m3_index_topk(
        score=scores.transpose(0, 1),
        topk=topk,
        init_blocks=sink_blocks,
        local_blocks=local_blocks,
        **chunks(cu_q, cu_k),
    )
    chosen: Tensor = ids.transpose(0, 1).contiguous()
    return chosen


def chunks(cu_q: Tensor, cu_k: Tensor) -> dict[str, object]:
    """Where each chunk of queries stands, in the keywords of vLLM's prefill kernels."""
    return {
        "cu_seqlens_q": cu_q.contiguous(),
        "prefix_lens": converting.lengths(cu_k) - converting.lengths(cu_q),
        "max_query_len": converting.longest(cu_q),
    }


def as_packed(q: Tensor, k_lens: Tensor) -> tuple[Tensor, Tensor]:
    """``cu_q`` and ``cu_k`` of a decode step: queries ``[B, Q, ..]``, lengths int32 ``[B]``."""
    queries = torch.full_like(k_lens, q.shape[1])
    return converting.cumulated(queries), converting.cumulated(k_lens)


def require_sizes(block: int, **tensors: Tensor) -> None:
    """Refuse blocks, widths and dtypes that vLLM's backend does not name.

    Raises:
        TypeError: another dtype than float16 or bfloat16.
        ValueError: another block or width than 128.
    """
    if block != SIZE:
        raise ValueError(f"block: wanted {SIZE}, a page of vLLM's, got {block}")
    for name, x in tensors.items():
        if x.dtype not in _DTYPES:
            raise TypeError(f"{name}: wanted float16 or bfloat16, got {came(x)}")
        if x.shape[-1] != SIZE:
            raise ValueError(f"{name}: wanted a width of {SIZE}, got {came(x)}")


def require_few(name: str, elements: int) -> None:
    """Refuse what vLLM's kernels, whose offsets have 32 bits, would read or write elsewhere.

    Raises:
        ValueError: 2**31 elements and more.
    """
    if elements >= _FEW:
        raise ValueError(f"{name}: wanted less than 2**31 elements, got {elements}")


def _visible(raw: Tensor, cu_q: Tensor, cu_k: Tensor, columns: int, scale: float) -> Tensor:
    """Products ``[Hkv, Tq, at least NB]`` as scores ``[Tq, Hkv, NB]``."""
    scores = raw[..., :columns].transpose(0, 1) * scale
    local = converting.local_blocks_of(cu_q, cu_k, SIZE)[:, None, None]
    hidden = torch.arange(columns, device=raw.device) > local
    return scores.masked_fill(hidden, -torch.inf)
