"""FlashInfer's kernels for MSA, ``flashinfer.msa_ops``, as flashinfer-python 0.7.2.post1 has them.

By its docstrings selection and attention run on compute capability 10.0, 10.3, 12.0 and 12.1,
block scores on 12.x only: the operations that begin with them stand in ``flashinfer_scores``, and
this module has them where the device does.
On 12.x its selector is told how many blocks each query sees. On 10.x it takes one number for all,
so forced blocks are marked in the scores and blocks of the future are taken out afterwards.

What to know of its results: any of nearly equal blocks may be selected (beyond 128 blocks on 12.x
the last two bits of a score are dropped), partial sums of a split decode step on 12.x are in the
dtype of the queries, and how 10.x treats a row without any block is not said.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from msa.calls import check_attention, check_selecting
from msa.calls_paged import check_paged
from msa_kernels.adapters import converting
from msa_kernels.adapters.flashinfer_calls import (
    GROUPS,
    SIZE,
    TOPK,
    api,
    blocks_first,
    is_12,
    lists,
    require_sizes,
    steps,
)

#: Compute capabilities of its dense kernels; those of 10.7 read NVFP4 only.
_DEVICES = ((10, 0), (10, 3), (12, 0), (12, 1))
_SCORING = ("block_scores", "paged_block_scores", "attend", "attend_paged")

# Without E4M3: it takes one factor for all heads.
CAPABILITIES: dict[str, object] = {
    "dtypes": ["float16", "bfloat16"],
    "devices": ["cuda"],
    "layouts": ["packed", "paged"],
    "head_dims": [SIZE],
    "index_dims": [SIZE],
    "block_sizes": [SIZE],
    "topk_values": [TOPK],
    "group_sizes": list(GROUPS),
    "nan_scores": False,
    "sink_blocks": True,
    "exact_scores": True,
    "scores_on": ["compute capability 12.0", "compute capability 12.1"],
}
#: Distributions whose code this runs; the record of a run names their versions.
RUNS = ("flashinfer-python",)


def unavailable() -> str | None:
    """Why it cannot run here, or None."""
    if why := converting.why_no_gpu("flashinfer", {major for major, _ in _DEVICES}):
        return why
    device = torch.cuda.get_device_capability()
    if device not in _DEVICES:
        listed = ", ".join(f"{major}.{minor}" for major, minor in _DEVICES)
        return f"wanted a CUDA device of compute capability {listed}, got {device[0]}.{device[1]}"
    try:
        version = importlib.metadata.version(*RUNS)
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < (0, 7, 2):
        return f"wanted {RUNS[0]} 0.7.2 or newer, got {version}"
    return None


def __getattr__(name: str) -> Callable[..., Any]:
    """The operations that begin with block scores, asked for where the device is known.

    Raises:
        AttributeError: the device has none, or there is nothing of that name.
    """
    if name not in _SCORING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not is_12():
        here = torch.cuda.get_device_capability() if torch.cuda.is_available() else ()
        got = ".".join(map(str, here)) or "none"
        raise AttributeError(f"{name}: wanted a CUDA device of compute capability 12.x, got {got}")
    scoring = importlib.import_module("msa_kernels.adapters.flashinfer_scores")
    operation: Callable[..., Any] = getattr(scoring, name)
    return operation


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
    """Selection by ``msa_topk_select``.

    Args:
        scores: float32 ``[Tq, Hkv, NB]``, not NaN.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        topk: 16.
        local_blocks: newest blocks of each query that are always kept.
        sink_blocks: first blocks that are always kept.

    Returns:
        int32 ``[Tq, Hkv, 16]``, ascending, then -1.

    Raises:
        TypeError: scores of another dtype.
        ValueError: another budget than 16, or shapes that do not fit.
    """
    check_selecting(scores, cu_q, cu_k, block, topk, local_blocks, sink_blocks)
    if topk != TOPK:
        raise ValueError(f"topk: wanted {TOPK}, all that it is built for, got {topk}")
    if not len(scores):
        return scores.new_empty((0, scores.shape[1], topk), dtype=torch.int32)
    if is_12(scores.device):
        local = converting.local_blocks_of(cu_q, cu_k, block)
        chosen: Tensor = api().msa_topk_select(
            blocks_first(scores),
            topk,
            num_valid_pages=(local + 1).to(torch.int32),
            force_begin_blocks=sink_blocks,
            force_end_blocks=local_blocks,
        )
        return chosen
    # What a query sees outranks what it does not, even with a score of -inf.
    seen = scores.clamp(min=torch.finfo(torch.float32).min)
    marked = converting.with_forced(
        seen, cu_q, cu_k, block=block, local_blocks=local_blocks, sink_blocks=sink_blocks
    )
    found = api().msa_topk_select(blocks_first(marked), topk, num_valid_pages=scores.shape[2])
    return converting.without_hidden(found, cu_q, cu_k, block)


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
) -> tuple[Tensor, Tensor]:
    """Attention by ``msa_sparse_attention`` over packed keys.

    Args:
        q: float16 or bfloat16 ``[Tq, Hq, 128]``.
        k: like it, ``[Tk, Hkv, 128]``.
        v: like ``k``.
        selection: int32 ``[Tq, Hkv, k]``, k up to 16.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: 128.
        scale: factor on the logits.

    Returns:
        out ``[Tq, Hq, 128]`` and the natural log-sum-exp float32 ``[Tq, Hq]``.

    Raises:
        TypeError: another dtype.
        ValueError: sizes that it is not built for, or that do not fit together.
    """
    check_attention(q, k, v, selection, cu_q, cu_k, block, quantized=False)
    require_sizes(block, q=q, k=k)
    if not len(q):
        return torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
    # Its causal flag is off unless it is asked for.
    out, lse = api().msa_sparse_attention(
        *(x.contiguous() for x in (q, k, v)),
        lists(selection, cu_q, cu_k, q.shape[1]),
        cu_q,
        cu_seqlens_k=cu_k,
        causal=True,
        softmax_scale=scale,
        return_softmax_lse=True,
    )
    return out, lse


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
    """Attention by ``msa_sparse_decode_attention`` over selected pages.

    Args:
        q: float16 or bfloat16 ``[B, Q, Hq, 128]``.
        k_pages: like it, ``[P, Hkv, 128, 128]``, heads before tokens.
        v_pages: like ``k_pages``.
        selection: int32 ``[B, Q, Hkv, k]``, k up to 16.
        page_table: int32 ``[B, W]``.
        k_lens: int32 ``[B]``.
        scale: factor on the logits.

    Returns:
        out ``[B, Q, Hq, 128]`` and the natural log-sum-exp float32 ``[B, Q, Hq]``.

    Raises:
        TypeError: another dtype.
        ValueError: sizes that it is not built for, or that do not fit together.
    """
    check_paged(q, k_pages, v_pages, selection, page_table, k_lens)
    require_sizes(k_pages.shape[2], q=q, k_pages=k_pages)
    cu_q, cu_k = steps(q), converting.cumulated(k_lens)
    out, lse = api().msa_sparse_decode_attention(
        *(x.contiguous() for x in (q.flatten(0, 1), k_pages, v_pages)),
        lists(selection.flatten(0, 1), cu_q, cu_k, q.shape[2]),
        page_table=page_table.contiguous(),
        seqused_k=k_lens,
        seqlen_q=q.shape[1],
        causal=True,
        softmax_scale=scale,
        return_softmax_lse=True,
    )
    return out.view(q.shape), lse.view(q.shape[:3])
