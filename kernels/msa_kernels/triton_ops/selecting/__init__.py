"""Top-k over block scores, with the forced blocks and an exact rule for ties."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls
from msa_kernels.triton_ops.limits import INTERPRETED, on, require_sizes, require_tensors
from msa_kernels.triton_ops.selecting.kernel import select_tile
from msa_kernels.triton_ops.tiles import FUSION, halvings, padded

#: Keys that a program looks at together, and blocks of a row among them.
_KEYS = 2048
_WIDEST = 1024
#: Rows of a program; with twice as many it spills.
_MOST = 32
#: Comparisons by which a program puts what it kept in order.
_COMPARED = 8192


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

    NaN scores rank like -inf; among equal scores the lower block wins.

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

    Raises:
        ValueError: a shape, a length, a size or a budget that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_selecting(
        scores, cu_q, cu_k, block, topk, local_blocks, sink_blocks, read=INTERPRETED
    )
    require_tensors(scores=scores, cu_q=cu_q, cu_k=cu_k)
    require_sizes(block=block, topk=topk)
    selection = scores.new_empty((*scores.shape[:2], topk), dtype=torch.int32)
    select_rows(
        scores,
        selection,
        0,
        cu_q=cu_q,
        cu_k=cu_k,
        block=block,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
    )
    return selection


def select_rows(
    scores: Tensor,
    selection: Tensor,
    low: int,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    local_blocks: int,
    sink_blocks: int,
) -> None:
    """Fill in the selection of some rows.

    Args:
        scores: float32 ``[n, Hkv, NB]`` of rows ``low`` to ``low + n``; hidden ones are not read.
        selection: int32 ``[n, Hkv, topk]``, contiguous.
        low: the first row.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
    """
    totals = (cu_q.contiguous(), cu_k.contiguous())
    forced = (local_blocks, sink_blocks)
    _launch(scores, selection, *totals, low, len(cu_q) - 1, 0, block=block, forced=forced)


def select_of_pages(
    scores: Tensor,
    selection: Tensor,
    *,
    k_lens: Tensor,
    block: int,
    local_blocks: int,
    sink_blocks: int,
) -> None:
    """Fill in the selection ``[B, Q, Hkv, topk]``, contiguous, of scores ``[B, Q, Hkv, W]``."""
    totals = (k_lens, k_lens.contiguous())
    _launch(
        scores.flatten(0, 1), selection.flatten(0, 1), *totals, 0, len(k_lens), scores.shape[1],
        block=block, forced=(local_blocks, sink_blocks),
    )  # fmt: skip


def _launch(
    scores: Tensor,
    selection: Tensor,
    row_totals: Tensor,
    key_totals: Tensor,
    low: int,
    sequences: int,
    queries: int,
    *,
    block: int,
    forced: tuple[int, int],
) -> None:
    """Both ways; ``queries`` is 0 where the batch is packed."""
    rows, groups, topk = selection.shape
    if not selection.numel():
        return
    kept = padded(topk, 2)
    wide = min(padded(scores.shape[2], 2), _WIDEST)
    items = max(min(_KEYS // wide, _COMPARED // kept**2, _MOST), 1)
    with on(scores):
        select_tile[triton.cdiv(rows * groups, items),](
            scores,
            selection,
            row_totals,
            key_totals,
            *scores.stride(),
            low,
            rows * groups,
            *forced,
            sequences,
            halvings(sequences),
            queries,
            GROUPS=groups,
            BLOCK=block,
            TOPK=topk,
            KEPT=kept,
            ITEMS=items,
            TILE=wide,
            PAGED=queries > 0,
            num_warps=4,
            **FUSION,
        )
