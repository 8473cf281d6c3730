"""Launches of block scores: of packed sequences, and of the pages of a cache."""

from __future__ import annotations

import triton
from torch import Tensor

from msa_kernels.triton_ops.limits import on
from msa_kernels.triton_ops.scoring.kernel import score_tile
from msa_kernels.triton_ops.tiles import SCORING, SCORING_FEW, halvings, padded, tile_of

#: Programs that keep a GPU busy; above it each takes a longer run of blocks.
_PROGRAMS = 2048
_LONGEST_RUN = 64
#: Factors of E4M3 index queries and index keys; None for 1.
Factors = tuple[Tensor | None, Tensor | None]
#: Bytes of an element -> channels that a matrix instruction takes at least.
_LEAST = {1: 32, 2: 16, 4: 16}
#: Most programs on the second axis of a grid.
_AXIS = 65535


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
    factors: Factors = (None, None),
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
        factors: of E4M3 index queries and index keys.
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
        factors=factors,
        low=low,
        sequences=len(cu_q) - 1,
        queries=0,
        block=block,
    )


def score_pages(
    q_idx: Tensor,
    index_pages: Tensor,
    scores: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
    factors: Factors = (None, None),
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
        factors=factors,
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
    factors: Factors,
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
            *(None if x is None else x.contiguous() for x in factors),
            *q_idx.stride(),
            key_strides[0],
            0 if shared else key_strides[1],
            key_strides[2],
            *scores.stride()[:2],
            *page_strides,
            0 if shared else 1,
            abs(float(scale)),
            low,
            low + rows,
            sequences,
            halvings(sequences),
            queries,
            GROUPS=groups,
            PARTS=parts,
            DIM=q_idx.shape[2],
            DIMS=padded(q_idx.shape[2], _LEAST[q_idx.element_size()]),
            BLOCK=block,
            WIDTH=width,
            COLUMNS=at_once,
            RUN=run,
            NEGATED=scale < 0,
            ROWS=tile.rows,
            PAGED=queries > 0,
            **tile.options,
        )
