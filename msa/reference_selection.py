"""The specification of the index branch: token scores, their best per block, the top k."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.attended import ROWS
from msa.packing import block_columns, count_blocks, segments
from msa.quantized import decode


def block_scores(
    q_idx: Tensor,
    k_idx: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> Tensor:
    """The best visible token score of every key block.

    Index keys may be E4M3, beside index queries of any floating dtype; or NVFP4 ``[.., Di / 2]``,
    with scales in E4M3 ``[.., Di / 16]`` of otherwise the same shape (:mod:`msa.nvfp4`).

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the token scores, ``Di ** -0.5`` in the paper.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 its scales.

    Returns:
        float32 ``[Tq, Hkv, NB]``; -inf where a block has no visible token.
    """
    calls.check_index(q_idx, k_idx, cu_q, cu_k, block, packed=True)
    checks.require_scale("scale", scale)
    q_idx = decode("q_idx", q_idx, q_idx_descale, axis=1)
    k_idx = decode("k_idx", k_idx, k_idx_descale, axis=1)
    groups, columns = q_idx.shape[1], block_columns(cu_k, block)
    scores = q_idx.new_full((q_idx.shape[0], groups, columns), -torch.inf, dtype=torch.float32)
    for s in segments(cu_q, cu_k):
        keys = k_idx[s.k_start : s.k_stop].double().expand(-1, groups, -1)
        position = torch.arange(s.k_len, device=q_idx.device)
        for start in range(0, s.q_len, ROWS):
            rows = slice(s.q_start + start, min(s.q_start + start + ROWS, s.q_stop))
            mine = s.positions(q_idx.device)[start : start + ROWS]
            token = torch.einsum("tgd,sgd->tgs", q_idx[rows].double(), keys) * scale
            token.masked_fill_((position > mine[:, None])[:, None], -torch.inf)
            for b in range(count_blocks(s.k_len, block)):
                best = token[..., b * block : (b + 1) * block].amax(-1)
                scores[rows, :, b] = best.float()
    return scores


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
    """The ``min(topk, visible blocks)`` blocks of every query and group, forced ones first.

    Visibility follows from positions, not from scores: a NaN score ranks last, like -inf. Among
    equal scores the lower block wins.

    Args:
        scores: float32 ``[Tq, Hkv, NB]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.

    Returns:
        int32 ``[Tq, Hkv, topk]``, ascending block ids, then -1.
    """
    calls.check_selecting(scores, cu_q, cu_k, block, topk, local_blocks, sink_blocks)
    selection = torch.full((*scores.shape[:2], topk), -1, dtype=torch.int32, device=scores.device)
    for s in segments(cu_q, cu_k):
        for row in range(s.q_start, s.q_stop):
            local = (s.first_position + row - s.q_start) // block
            ranked = (
                scores[row, :, : local + 1]
                .double()
                .nan_to_num(nan=-torch.inf, neginf=-torch.inf, posinf=torch.inf)
            )
            order = torch.argsort(ranked, dim=-1, descending=True, stable=True)
            forced = {b for b in range(local + 1) if b < sink_blocks or b > local - local_blocks}
            chosen = []
            for best_first in order.tolist():  # of every group
                rest = [b for b in best_first if b not in forced]
                kept = sorted([*forced, *rest][:topk])
                chosen.append(kept + [-1] * (topk - len(kept)))
            selection[row] = torch.tensor(chosen, dtype=torch.int32)
    return selection
