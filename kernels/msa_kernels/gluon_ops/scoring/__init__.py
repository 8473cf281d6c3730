"""Block scores of packed sequences and of a paged cache."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls, calls_paged, checks
from msa.packing import block_columns
from msa_kernels.gluon_ops.arms import BLOCKS, DIMS, Arm, require_cached, require_size
from msa_kernels.gluon_ops.launching import as_given, as_matrix, boxes, launch
from msa_kernels.gluon_ops.scoring.kernel import score_blocks
from msa_kernels.gluon_ops.scoring.planning import plan_requests, plan_tiles

#: Rows of a product, M: queries times the groups that share their keys.
ROWS = 128
#: Slots for keys, tiles of products in tensor memory, blocks held before they are stored, and slots
#: for keys that are widened on the way.
STAGES, TILES, COLUMNS, WIDES = 4, 2, 8, 2
#: Programs that keep a GPU busy; above it each takes a longer run of blocks.
_PROGRAMS = 2048
_RUNS = (8, 64)
#: Factors of E4M3 index queries and index keys; None for 1. Of NVFP4 keys their scales.
Factors = tuple[Tensor | None, Tensor | None]


def block_scores(
    arm: Arm,
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
    """The best visible token score of every key block. Not differentiable.

    A NaN among the visible scores of a block is passed over. The width of the result follows from
    ``cu_k``, which a GPU has to be waited for.

    Args:
        arm: where to run.
        q_idx: index queries ``[Tq, Hkv, Di]``, float16, bfloat16 or E4M3.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``, of the same dtype or in E4M3; or
            ``[Tk, 1 or Hkv, Di / 2]`` in NVFP4 beside queries of 16 bits.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block, 16, 32, 64 or 128.
        scale: factor on the token scores, ``Di ** -0.5`` in the paper.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 E4M3
            ``[Tk, 1 or Hkv, Di / 16]``.

    Returns:
        float32 ``[Tq, Hkv, NB]``; -inf where a block has no visible token.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_index(q_idx, k_idx, cu_q, cu_k, block, read=arm.simulated, packed=True)
    arm.require(q_idx=q_idx, k_idx=k_idx, cu_q=cu_q, cu_k=cu_k)
    check_scoring(arm, q_idx, k_idx, (q_idx_descale, k_idx_descale), scale, block)
    shape = (*q_idx.shape[:2], block_columns(cu_k, block))
    scores = q_idx.new_full(shape, -torch.inf, dtype=torch.float32)
    score_rows(
        arm, q_idx, k_idx, scores, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
        factors=(q_idx_descale, k_idx_descale),
    )  # fmt: skip
    return scores


def paged_block_scores(
    arm: Arm,
    q_idx: Tensor,
    index_pages: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> Tensor:
    """The best visible token score of every block of a cache. Not differentiable.

    Nothing waits for a GPU: the width of the result is that of the page table.

    Args:
        arm: where to run.
        q_idx: index queries ``[B, Q, Hkv, Di]``; the last of a request sits on its last key.
        index_pages: index keys ``[P, 1 or Hkv, block, Di]``, a page holds one block; of NVFP4
            ``[.., Di / 2]``.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the token scores.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 E4M3
            ``[P, 1 or Hkv, block, Di / 16]``.

    Returns:
        float32 ``[B, Q, Hkv, W]``; -inf where a block has no visible token.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls_paged.check_paged_index(
        q_idx, index_pages, page_table, k_lens, read=arm.simulated, packed=True
    )
    check_scoring(
        arm, q_idx, index_pages, (q_idx_descale, k_idx_descale), scale, index_pages.shape[2]
    )
    arm.require(q_idx=q_idx, index_pages=index_pages, page_table=page_table, k_lens=k_lens)
    shape = (*q_idx.shape[:3], page_table.shape[1])
    scores = q_idx.new_full(shape, -torch.inf, dtype=torch.float32)
    score_pages(
        arm, q_idx, index_pages, scores, page_table=page_table, k_lens=k_lens, scale=scale,
        factors=(q_idx_descale, k_idx_descale),
    )  # fmt: skip
    return scores


def check_scoring(
    arm: Arm, q_idx: Tensor, k_idx: Tensor, factors: Factors, scale: float, block: int
) -> None:
    """What no kernel takes of index queries ``[.., Hkv, Di]`` and keys with heads on axis 1."""
    calls.check_factors(("q_idx", q_idx, factors[0]), axis=-2, read=arm.simulated)
    calls.check_factors(("k_idx", k_idx, factors[1]), read=arm.simulated)
    checks.require_scale("scale", scale)
    require_size("q_idx", "an index dim", q_idx.shape[-1], DIMS)
    require_size("block", "a size", block, BLOCKS)
    require_cached("k_idx", k_idx, "q_idx", q_idx)
    if q_idx.shape[-2] > ROWS:
        raise ValueError(f"q_idx: wanted at most {ROWS} groups, got {q_idx.shape[-2]}")


def score_rows(
    arm: Arm,
    q_idx: Tensor,
    k_idx: Tensor,
    scores: Tensor,
    low: int = 0,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    factors: Factors = (None, None),
) -> None:
    """Fill in the scores of some rows, where a block is visible.

    Args:
        arm: where to run.
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
    heads, width = k_idx.shape[1:]
    tokens = ROWS // (q_idx.shape[1] if heads == 1 else 1)
    plan = plan_tiles(cu_q, cu_k, low=low, rows=len(scores), tokens=tokens)
    keys = as_matrix(k_idx, width * heads)
    given = as_given((q_idx, factors[0]), (k_idx, factors[1]))
    _launch(arm, q_idx, keys, scores, plan, None, low, heads, block, scale, given)


def score_pages(
    arm: Arm,
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
    heads, block, width = index_pages.shape[1:]
    tokens = ROWS // (q_idx.shape[2] if heads == 1 else 1)
    plan = plan_requests(k_lens, queries=q_idx.shape[1], tokens=tokens)
    flat = (q_idx.flatten(0, 1), as_matrix(index_pages, width), scores.flatten(0, 1))
    given = as_given((q_idx, factors[0]), (index_pages, factors[1]))
    _launch(arm, *flat, plan, page_table.contiguous(), 0, heads, block, scale, given)


def _launch(
    arm: Arm,
    q_idx: Tensor,
    keys: Tensor,
    scores: Tensor,
    plan: Tensor,
    page_table: Tensor | None,
    low: int,
    heads: int,
    block: int,
    scale: float,
    given: tuple[Tensor | None, ...],
) -> None:
    """Both ways; ``page_table`` is None where the batch is packed, and ``keys`` a matrix.

    ``given`` are the factors and scales by :func:`as_given`.
    """
    groups, columns = scores.shape[1:]
    if not scores.numel() or not keys.numel():
        return
    dim = q_idx.shape[2]
    width = keys.shape[1] // (1 if page_table is not None else heads)
    parts = groups if heads == 1 else 1
    run = _RUNS[0]
    while run < _RUNS[1] and len(plan) * heads * triton.cdiv(columns, run) > _PROGRAMS:
        run *= 2
    launch(
        arm,
        score_blocks,
        (len(plan), triton.cdiv(columns, run), heads),
        boxes(as_matrix(q_idx, dim * groups // parts), ROWS, dim),
        boxes(keys, block, width),
        scores,
        plan,
        page_table,
        *given,
        *scores.stride()[:2],
        0 if page_table is None else page_table.shape[1],
        abs(float(scale)),
        len(plan) - 1,
        low,
        near=q_idx,
        PARTS=parts,
        HEADS=heads,
        DIM=dim,
        ROWS=ROWS,
        BLOCK=block,
        RUN=run,
        COLUMNS=COLUMNS,
        STAGES=STAGES,
        TILES=TILES,
        WIDES=0 if keys.dtype == q_idx.dtype else WIDES,
        NEGATED=scale < 0,
        PAGED=page_table is not None,
        Q_BYTES=ROWS * dim * q_idx.element_size(),
        K_BYTES=block * width * keys.element_size(),
    )
