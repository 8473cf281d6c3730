"""Block scores of the index branch."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls, checks
from msa.packing import block_columns
from msa_kernels.triton_ops.limits import INTERPRETED, on, require_sizes, require_tensors
from msa_kernels.triton_ops.scoring.kernel import score_tile
from msa_kernels.triton_ops.tiles import SCORING, halvings, padded, tile_of

#: Programs that keep a GPU busy; above it each takes a longer run of blocks.
_PROGRAMS = 2048
_LONGEST_RUN = 64
#: Most programs on the second axis of a grid.
_AXIS = 65535


def block_scores(
    q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
) -> Tensor:
    """The best visible token score of every key block. Not differentiable.

    A NaN among the visible scores of a block is passed over. The width of the result follows from
    ``cu_k``, which a GPU has to be waited for; :func:`..pipeline.attend` does not need it.

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the token scores, ``Di ** -0.5`` in the paper.

    Returns:
        float32 ``[Tq, Hkv, NB]``; -inf where a block has no visible token.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_index(q_idx, k_idx, cu_q, cu_k, block, read=INTERPRETED)
    checks.require_scale("scale", scale)
    require_tensors(q_idx=q_idx, k_idx=k_idx, cu_q=cu_q, cu_k=cu_k)
    require_sizes(index_dim=q_idx.shape[2], block=block)
    shape = (*q_idx.shape[:2], block_columns(cu_k, block))
    scores = q_idx.new_full(shape, -torch.inf, dtype=torch.float32)
    score_rows(q_idx, k_idx, scores, 0, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale)
    return scores


def score_rows(
    q_idx: Tensor,
    k_idx: Tensor,
    scores: Tensor,
    low: int,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> None:
    """Fill in the scores of some rows, where a block is visible.

    Args:
        q_idx: of all rows.
        k_idx: of all keys.
        scores: float32 ``[n, Hkv, at least NB]`` of rows ``low`` to ``low + n``, last stride 1.
        low: the first row.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the token scores.
    """
    rows, groups, columns = scores.shape
    if not scores.numel():
        return
    tile, width = tile_of(SCORING, q_idx), padded(block)
    shared = k_idx.shape[1] == 1
    parts = min(groups, tile.rows) if shared else 1
    sequences = len(cu_q) - 1
    tiles = rows // (tile.rows // parts) + sequences
    at_once = max(tile.rows // width, 1)
    steps = triton.cdiv(columns, at_once)
    wanted = steps * tiles * triton.cdiv(groups, parts) // _PROGRAMS
    run = triton.next_power_of_2(max(min(wanted, _LONGEST_RUN), triton.cdiv(steps, _AXIS), 1))
    with on(q_idx):
        score_tile[tiles, triton.cdiv(steps, run), triton.cdiv(groups, parts)](
            q_idx,
            k_idx,
            scores,
            cu_q.contiguous(),
            cu_k.contiguous(),
            *q_idx.stride(),
            k_idx.stride(0),
            0 if shared else k_idx.stride(1),
            k_idx.stride(2),
            *scores.stride()[:2],
            abs(float(scale)),
            low,
            low + rows,
            sequences,
            halvings(sequences),
            GROUPS=groups,
            PARTS=parts,
            DIM=q_idx.shape[2],
            DIMS=padded(q_idx.shape[2]),
            BLOCK=block,
            WIDTH=width,
            COLUMNS=at_once,
            RUN=run,
            NEGATED=scale < 0,
            ROWS=tile.rows,
            **tile.options,
        )
