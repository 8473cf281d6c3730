"""The whole of MSA on packed sequences, a chunk of queries at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.fast.attention import sparse_attention
from msa.fast.scoring import decode_index, index_keys, score_chunks, score_rows
from msa.fast.selecting import select_rows
from msa.fast.threads import for_each
from msa.packing import segments
from msa.quantized import E4M3

#: Token scores below which threads cost more than they bring.
_WORTH_THREADS = 1 << 22


@torch.no_grad()
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

    A few hundred queries at a time are scored and ranked, so block scores are never held for all
    of them.

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
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 its scales.
        v_descale: float32 ``[Hkv]``, those of the values; of NVFP4 its scales.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 its scales.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype (bfloat16 for E4M3) and the selection int32
        ``[Tq, Hkv, topk]``.

    Raises:
        ValueError: a shape, a length, a budget or a value that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_pipeline(q, k, v, q_idx, k_idx, cu_q, cu_k, packed=True)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    tensors = {"q": q, "k": k, "v": v, "q_idx": q_idx, "k_idx": k_idx}
    scales = {"k": k_descale, "v": v_descale, "k_idx": k_idx_descale}
    for name, x in calls.may_hold_nan(tensors, scales):
        # A finite sum proves finite terms at a fraction of the cost of looking at each.
        if x.dtype == E4M3 or not bool(x.sum().isfinite()):
            checks.require_finite(name, x)
    selection = select_all(
        *decode_index(q_idx, k_idx, q_idx_descale, k_idx_descale),
        cu_q=cu_q,
        cu_k=cu_k,
        block=block,
        topk=topk,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
        scale=index_scale,
    )
    out, _ = sparse_attention(
        q, k, v, selection, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
        q_descale=q_descale, k_descale=k_descale, v_descale=v_descale,
    )  # fmt: skip
    return out, selection


@torch.no_grad()
def select_all(
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
) -> Tensor:
    """``select_blocks(block_scores(...))`` without ever holding all the scores.

    Where every visible block fits in ``topk`` nothing is scored.

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
        scale: factor on the token scores.

    Returns:
        int32 ``[Tq, Hkv, topk]``, ascending block ids, then -1.
    """
    calls.check_index(q_idx, k_idx, cu_q, cu_k, block)
    checks.require_budget(topk, local_blocks, sink_blocks)
    groups = q_idx.shape[1]
    selection = torch.empty((*q_idx.shape[:2], topk), dtype=torch.int32, device=q_idx.device)
    for s in segments(cu_q, cu_k):
        keys = index_keys(k_idx[s.k_start : s.k_stop])
        offset = s.first_position - s.q_start

        def fill(rows: tuple[int, int], keys: Tensor = keys, offset: int = offset) -> None:
            start, stop = rows
            first = start + offset
            local = torch.arange(first, stop + offset, device=q_idx.device) // block
            columns = (stop + offset - 1) // block + 1
            if columns > topk:
                scores = score_rows(q_idx[start:stop], keys, first, block, scale)
            else:
                scores = keys.new_empty((stop - start, groups, columns), dtype=torch.float32)
            selection[start:stop] = select_rows(scores, local, topk, local_blocks, sink_blocks)

        spread = q_idx.device.type == "cpu" and s.q_len * s.k_len * groups > _WORTH_THREADS
        # The longest rows first, so that no thread is left with them at the end.
        chunks = score_chunks(s, groups, block)
        for_each(fill, reversed(chunks), spread=spread)
    return selection
