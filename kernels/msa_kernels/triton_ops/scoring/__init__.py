"""Block scores of the index branch."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls, checks
from msa.packing import block_columns
from msa_kernels.triton_ops.limits import INTERPRETED, on, require_sizes, require_tensors
from msa_kernels.triton_ops.scoring.kernel import score_tile
from msa_kernels.triton_ops.tiles import SCORING, SCORING_FEW, halvings, padded, tile_of

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
    _launch(
        q_idx,
        k_idx,
        scores,
        cu_q.contiguous(),
        cu_k.contiguous(),
        cu_q,
        key_strides=k_idx.stride(),
        page_strides=(0, 0, 0),
        scale=scale,
        low=low,
        sequences=len(cu_q) - 1,
        queries=0,
        block=block,
    )


def paged_block_scores(
    q_idx: Tensor, index_pages: Tensor, *, page_table: Tensor, k_lens: Tensor, scale: float
) -> Tensor:
    """The best visible token score of every block of a cache. Not differentiable.

    Nothing waits for a GPU: the width of the result is that of the page table.

    Args:
        q_idx: index queries ``[B, Q, Hkv, Di]``; the last of a request sits on its last key.
        index_pages: index keys ``[P, 1 or Hkv, block, Di]``, a page holds one block.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the token scores.

    Returns:
        float32 ``[B, Q, Hkv, W]``; -inf where a block has no visible token.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_paged_index(q_idx, index_pages, page_table, k_lens, read=INTERPRETED)
    checks.require_scale("scale", scale)
    require_tensors(q_idx=q_idx, index_pages=index_pages, page_table=page_table, k_lens=k_lens)
    require_sizes(index_dim=q_idx.shape[3], block=index_pages.shape[2])
    shape = (*q_idx.shape[:3], page_table.shape[1])
    scores = q_idx.new_full(shape, -torch.inf, dtype=torch.float32)
    score_pages(q_idx, index_pages, scores, page_table=page_table, k_lens=k_lens, scale=scale)
    return scores


def score_pages(
    q_idx: Tensor,
    index_pages: Tensor,
    scores: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
) -> None:
    """Fill in ``scores`` ``[B, Q, Hkv, W]``, contiguous, where a block is visible."""
    of_page, of_head, of_token, of_channel = index_pages.stride()
    _launch(
        q_idx.flatten(0, 1),
        index_pages,
        scores.flatten(0, 1),
        k_lens,
        k_lens.contiguous(),
        page_table,
        key_strides=(of_token, of_head, of_channel),
        page_strides=(of_page, *page_table.stride()),
        scale=scale,
        low=0,
        sequences=len(k_lens),
        queries=q_idx.shape[1],
        block=index_pages.shape[2],
    )


def _launch(
    q_idx: Tensor,
    k_idx: Tensor,
    scores: Tensor,
    row_totals: Tensor,
    key_totals: Tensor,
    page_table: Tensor,
    *,
    key_strides: tuple[int, ...],
    page_strides: tuple[int, ...],
    scale: float,
    low: int,
    sequences: int,
    queries: int,
    block: int,
) -> None:
    """Both ways; ``queries`` is 0 where the batch is packed."""
    rows, groups, columns = scores.shape
    if not scores.numel():
        return
    shared = k_idx.shape[1] == 1
    tile, width = tile_of(SCORING, q_idx), padded(block)
    small = tile_of(SCORING_FEW, q_idx)
    if 0 < queries * (groups if shared else 1) <= small.rows:
        tile = small
    parts = min(groups, tile.rows) if shared else 1
    tokens = tile.rows // parts
    tiles = sequences * triton.cdiv(queries, tokens) if queries else rows // tokens + sequences
    at_once = max(tile.rows // width, 1)
    steps = triton.cdiv(columns, at_once)
    wanted = steps * tiles * triton.cdiv(groups, parts) // _PROGRAMS
    run = triton.next_power_of_2(max(min(wanted, _LONGEST_RUN), triton.cdiv(steps, _AXIS), 1))
    with on(q_idx):
        score_tile[tiles, triton.cdiv(steps, run), triton.cdiv(groups, parts)](
            q_idx,
            k_idx,
            scores,
            row_totals,
            key_totals,
            page_table,
            *q_idx.stride(),
            key_strides[0],
            0 if shared else key_strides[1],
            key_strides[2],
            *scores.stride()[:2],
            *page_strides,
            abs(float(scale)),
            low,
            low + rows,
            sequences,
            halvings(sequences),
            queries,
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
            PAGED=queries > 0,
            **tile.options,
        )
