"""The whole of MSA: our scores and attention, and between them the selection of ``triton``."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls, calls_paged, checks, fast
from msa_kernels.gluon_ops.arms import Arm
from msa_kernels.gluon_ops.attention import sparse_attention
from msa_kernels.gluon_ops.checking import check_attending
from msa_kernels.gluon_ops.decoding import sparse_decode
from msa_kernels.gluon_ops.scoring import Factors, check_scoring, score_pages, score_rows
from msa_kernels.triton_ops.selecting import select_of_pages, select_rows

#: Block scores that are held at a time: a gibibyte.
_HELD = 1 << 28


def attend(
    arm: Arm,
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
    """The whole of MSA on packed sequences. Not differentiable.

    Args:
        arm: where to run.
        q: ``[Tq, Hq, D]``, float16, bfloat16 or E4M3.
        k: ``[Tk, Hkv, D]``, of the same dtype or in E4M3; or ``[Tk, Hkv, D / 2]`` in NVFP4 beside
            queries of 16 bits.
        v: ``[Tk, Hkv, D]``, of k's dtype.
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``, in what k may be.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block, 16, 32, 64 or 128.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
        scale: factor on the logits.
        index_scale: factor on the index scores.
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 the scales of its groups.
        v_descale: those of the values.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 as ``k_descale``.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype (bfloat16 for E4M3) and the selection int32
        ``[Tq, Hkv, topk]``.

    Raises:
        ValueError: a shape, a length, a size, a budget or a value that cannot be; the message
            names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_pipeline(q, k, v, q_idx, k_idx, cu_q, cu_k, read=arm.simulated, packed=True)
    floats = {"q": q, "k": k, "v": v, "q_idx": q_idx, "k_idx": k_idx}
    scales = {"k": k_descale, "v": v_descale, "k_idx": k_idx_descale}
    for name, x in calls.may_hold_nan(floats, scales) if arm.simulated else ():
        checks.require_finite(name, x)
    calls.check_index(
        q_idx, k_idx, cu_q, cu_k, block, read=False, packed=True
    )  # read above, if at all
    factors = (q_idx_descale, k_idx_descale)
    check_scoring(arm, q_idx, k_idx, factors, index_scale, block)
    own = (q_descale, k_descale, v_descale)
    check_attending(arm, q, k, v, own, scale=scale, block=block, topk=topk)
    checks.require_budget(topk, local_blocks, sink_blocks)
    arm.require(**floats, cu_q=cu_q, cu_k=cu_k)
    forced = {"local_blocks": local_blocks, "sink_blocks": sink_blocks}
    selection = _select(
        arm, q_idx, k_idx, topk, forced, index_scale, factors,
        cu_q=cu_q, cu_k=cu_k, block=block,
    )  # fmt: skip
    out, _ = sparse_attention(
        arm, q, k, v, selection, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
        q_descale=q_descale, k_descale=k_descale, v_descale=v_descale,
    )  # fmt: skip
    return out, selection


def attend_paged(
    arm: Arm,
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
    """One decode step: scores of the cached index keys, selection, attention. Not differentiable.

    Args:
        arm: where to run.
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
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 the scales of its groups.
        v_descale: those of the values.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 as ``k_descale``.

    Returns:
        out ``[B, Q, Hq, D]`` in q's dtype (bfloat16 for E4M3) and the selection int32
        ``[B, Q, Hkv, topk]``.

    Raises:
        ValueError: a shape, a length, a size or a budget that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls_paged.check_paged_pipeline(
        q, q_idx, k_pages, v_pages, index_pages, page_table, k_lens, read=arm.simulated,
        packed=True,
    )  # fmt: skip
    for name, x in {"q": q, "q_idx": q_idx}.items() if arm.simulated else ():
        checks.require_finite(name, x)
    block = k_pages.shape[2]
    factors = (q_idx_descale, k_idx_descale)
    check_scoring(arm, q_idx, index_pages, factors, index_scale, block)
    own = (q_descale, k_descale, v_descale)
    check_attending(arm, q, k_pages, v_pages, own, scale=scale, block=block, topk=topk)
    checks.require_budget(topk, local_blocks, sink_blocks)
    caches = {"k_pages": k_pages, "v_pages": v_pages, "index_pages": index_pages}
    arm.require(q=q, q_idx=q_idx, **caches, page_table=page_table, k_lens=k_lens)
    pages = {"page_table": page_table, "k_lens": k_lens}
    scores = _unscored(arm, q, (*q_idx.shape[:3], page_table.shape[1]))
    score_pages(arm, q_idx, index_pages, scores, **pages, scale=index_scale, factors=factors)
    if arm.simulated:
        queries = torch.arange(len(k_lens) + 1, dtype=torch.int32) * q_idx.shape[1]
        selection = fast.select_blocks(
            scores.flatten(0, 1), cu_q=queries, cu_k=_running(k_lens), block=block, topk=topk,
            local_blocks=local_blocks, sink_blocks=sink_blocks,
        ).view(*q_idx.shape[:3], topk)  # fmt: skip
    else:
        selection = q.new_empty((*q_idx.shape[:3], topk), dtype=torch.int32)
        select_of_pages(
            scores, selection, k_lens=k_lens, block=block,
            local_blocks=local_blocks, sink_blocks=sink_blocks,
        )  # fmt: skip
    out, _ = sparse_decode(
        arm, q, k_pages, v_pages, selection, **pages, scale=scale,
        q_descale=q_descale, k_descale=k_descale, v_descale=v_descale,
    )  # fmt: skip
    return out, selection


def _unscored(arm: Arm, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Scores to be filled in. On a GPU nobody reads those of blocks that are not visible."""
    scores = like.new_empty(shape, dtype=torch.float32)
    return scores.fill_(-torch.inf) if arm.simulated else scores


def _running(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0, dtype=torch.int32)])


def _select(
    arm: Arm,
    q_idx: Tensor,
    k_idx: Tensor,
    topk: int,
    forced: dict[str, int],
    scale: float,
    factors: Factors,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
) -> Tensor:
    """Scores and selection, int32 ``[Tq, Hkv, topk]``; a GPU never holds all the scores."""
    rows, groups, _ = q_idx.shape
    columns = triton.cdiv(len(k_idx), block)  # of one sequence that has all keys
    q_idx, k_idx = q_idx.contiguous(), k_idx.contiguous()  # once, and not for each chunk
    selection = q_idx.new_empty((rows, groups, topk), dtype=torch.int32)
    chunk = rows if arm.simulated else max(_HELD // max(groups * columns, 1), 1)
    held = _unscored(arm, q_idx, (min(chunk, rows), groups, columns))
    for low in range(0, rows, max(chunk, 1)):
        mine = selection[low : low + chunk]
        scores = held[: len(mine)]
        score_rows(
            arm, q_idx, k_idx, scores, low, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
            factors=factors,
        )  # fmt: skip
        if arm.simulated:
            return fast.select_blocks(
                scores, cu_q=cu_q, cu_k=cu_k, block=block, topk=topk, **forced
            )
        select_rows(scores, mine, low, cu_q=cu_q, cu_k=cu_k, block=block, **forced)
    return selection
