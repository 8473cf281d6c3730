"""The whole of MSA on packed sequences, a chunk of queries at a time."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls, checks
from msa_kernels.triton_ops.attention import sparse_attention
from msa_kernels.triton_ops.limits import INTERPRETED, require_sizes, require_tensors
from msa_kernels.triton_ops.scoring import check_factors
from msa_kernels.triton_ops.scoring.launching import Factors, score_rows
from msa_kernels.triton_ops.selecting import select_rows

#: Block scores that are held at a time: a gibibyte.
_HELD = 1 << 28


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
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The whole of MSA: scores, selection, attention. Not differentiable.

    Nothing waits for a GPU: sizes are bounded by shapes, and values are looked at on a CPU only.

    Args:
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
        scale: factor on the logits.
        index_scale: factor on the index scores.
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys.
        v_descale: float32 ``[Hkv]``, those of the values.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype (bfloat16 for E4M3) and the selection int32
        ``[Tq, Hkv, topk]``.

    Raises:
        ValueError: a shape, a length, a size, a budget or a value that cannot be; the message
            names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_pipeline(q, k, v, q_idx, k_idx, cu_q, cu_k, read=INTERPRETED)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    floats = {"q": q, "k": k, "v": v, "q_idx": q_idx, "k_idx": k_idx}
    for name, x in floats.items() if INTERPRETED else ():
        checks.require_finite(name, x)
    calls.check_index(q_idx, k_idx, cu_q, cu_k, block, read=False)  # read above, if at all
    check_factors(q_idx, k_idx, q_idx_descale, k_idx_descale)
    checks.require_budget(topk, local_blocks, sink_blocks)
    require_tensors(**floats, cu_q=cu_q, cu_k=cu_k)
    require_sizes(
        dim=q.shape[2],
        block=block,
        topk=topk,
        share=q.shape[1] // k.shape[1],
        index_dim=q_idx.shape[2],
    )
    selection = _select(
        q_idx,
        k_idx,
        cu_q=cu_q,
        cu_k=cu_k,
        block=block,
        topk=topk,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
        scale=index_scale,
        factors=(q_idx_descale, k_idx_descale),
    )
    out, _ = sparse_attention(
        q, k, v, selection, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
        q_descale=q_descale, k_descale=k_descale, v_descale=v_descale,
    )  # fmt: skip
    return out, selection


def _select(
    q_idx: Tensor,
    k_idx: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    topk: int,
    local_blocks: int,
    sink_blocks: int,
    scale: float,
    factors: Factors,
) -> Tensor:
    """Scores and selection, int32 ``[Tq, Hkv, topk]``, without ever holding all the scores."""
    rows, groups, _ = q_idx.shape
    selection = q_idx.new_empty((rows, groups, topk), dtype=torch.int32)
    columns = triton.cdiv(len(k_idx), block)  # of one sequence that has all keys
    chunk = max(_HELD // max(groups * columns, 1), 1)
    held = q_idx.new_empty((min(chunk, rows), groups, columns), dtype=torch.float32)
    for low in range(0, rows, chunk):
        mine = selection[low : low + chunk]
        scores = held[: len(mine)]
        score_rows(
            q_idx, k_idx, scores, low, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
            factors=factors,
        )  # fmt: skip
        select_rows(
            scores,
            mine,
            low,
            cu_q=cu_q,
            cu_k=cu_k,
            block=block,
            local_blocks=local_blocks,
            sink_blocks=sink_blocks,
        )
    return selection
