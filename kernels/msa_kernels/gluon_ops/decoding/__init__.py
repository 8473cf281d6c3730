"""The newest tokens over a paged cache: attention to selected pages."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls_paged
from msa.quantized import E4M3, output_dtype
from msa_kernels.gluon_ops.arms import Arm
from msa_kernels.gluon_ops.checking import Factors, check_attending
from msa_kernels.gluon_ops.decoding.kernel import attend_pages
from msa_kernels.gluon_ops.decoding.planning import plan_slots
from msa_kernels.gluon_ops.launching import (
    as_given,
    as_matrix,
    boxes,
    gl_float,
    launch,
    merge_slots,
)

#: Rows of a product, M, of which a group's heads are used.
ROWS = 128
#: Tiles of logits and outputs.
TILES = 2
#: Bytes of shared memory that a program has for tiles, and pages that are on their way at most.
_SHARED = 226 << 10
_STAGES = 4
#: Programs that keep a GPU busy; below it the slots of a query are split among more.
_PROGRAMS = 256


def sparse_decode(
    arm: Arm,
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of the newest ``Q`` tokens of every request over selected pages of the cache.

    Reads the selected pages and no others, each query by its own selection; but a pool of pages
    that do not lie side by side is copied first. Not differentiable.

    Args:
        arm: where to run.
        q: ``[B, Q, Hq, D]``, float16, bfloat16 or E4M3; the last query of a request sits on its
            last key.
        k_pages: ``[P, Hkv, block, D]``, of the same dtype or in E4M3; a page holds one block. Or
            ``[P, Hkv, block, D / 2]`` in NVFP4 beside queries of 16 bits.
        v_pages: ``[P, Hkv, block, D]``, of k_pages' dtype.
        selection: int32 ``[B, Q, Hkv, k]``; negative entries are empty, in any place.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the logits.
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 E4M3 ``[P, Hkv, block, D / 16]``.
        v_descale: those of the values.

    Returns:
        out ``[B, Q, Hq, D]`` in q's dtype (bfloat16 for E4M3) and LSE float32 ``[B, Q, Hq]``.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls_paged.check_paged(
        q, k_pages, v_pages, selection, page_table, k_lens, read=arm.simulated, packed=True
    )
    factors = (q_descale, k_descale, v_descale)
    check_attending(
        arm, q, k_pages, v_pages, factors,
        scale=scale, block=k_pages.shape[2], topk=selection.shape[3],
    )  # fmt: skip
    arm.require(
        q=q,
        k_pages=k_pages,
        v_pages=v_pages,
        selection=selection,
        page_table=page_table,
        k_lens=k_lens,
    )
    out = q.new_empty(q.shape, dtype=output_dtype(q))
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    attend_selected(
        arm, q, k_pages, v_pages, selection, out, lse,
        page_table=page_table, k_lens=k_lens, scale=scale, factors=factors,
    )  # fmt: skip
    return out, lse


def attend_selected(
    arm: Arm,
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
    factors: Factors = (None, None, None),
) -> None:
    """Fill in ``out`` ``[B, Q, Hq, D]`` and ``lse`` ``[B, Q, Hq]``, both contiguous."""
    heads, dim = q.shape[2:]
    groups, block, width = k_pages.shape[1:]  # of NVFP4 bytes
    topk = selection.shape[3]
    items = q.shape[0] * q.shape[1] * groups
    outs = out.new_empty((*q.shape[:2], heads, topk, dim))
    lses = lse.new_full((*q.shape[:2], heads, topk), -torch.inf)
    if items and k_pages.numel() and page_table.numel():
        slots = plan_slots(selection, page_table=page_table, k_lens=k_lens, block=block)
        parts = min(topk, triton.cdiv(_PROGRAMS, items))
        run = triton.cdiv(topk, parts)
        if q.dtype == E4M3:
            q = q.half()  # which has all of its values; beside the pages it is small
        page = block * width * k_pages.element_size()
        # Beside the pages: the queries, and the weights of each tile.
        room = _SHARED - ROWS * (dim + TILES * block) * q.element_size()
        wides = 0
        if k_pages.dtype != q.dtype:
            wide = 2 * block * dim * q.element_size()
            wides = 2 if room >= 2 * wide + 4 * page else 1
            room -= wides * wide
        launch(
            arm,
            attend_pages,
            (items, triton.cdiv(topk, run)),
            boxes(as_matrix(q, dim), ROWS, dim),
            boxes(as_matrix(k_pages, width), block, width),
            boxes(as_matrix(v_pages, width), block, width),
            outs,
            lses,
            slots.counts,
            slots.places,
            *as_given(*zip((q, k_pages, v_pages), factors, strict=True)),
            run,
            float(scale),
            near=q,
            GROUPS=groups,
            SHARE=heads // groups,
            DIM=dim,
            BLOCK=block,
            TOPK=topk,
            ROWS=ROWS,
            STAGES=max(min(room // (2 * page), _STAGES), 1),
            TILES=TILES,
            WIDES=wides,
            WIDE=gl_float(q.dtype),
            Q_BYTES=ROWS * dim * q.element_size(),
            PAGE_BYTES=page,
        )
    merge_slots(arm, *(x.flatten(0, 1) for x in (outs, lses, out, lse)))
