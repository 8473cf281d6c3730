"""Attention with the queries outermost: packed sequences and pages, split over slots if need be."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa.quantized import E4M3
from msa_kernels.triton_ops.attention.query_outer.kernel import attend_slots
from msa_kernels.triton_ops.combining import merge
from msa_kernels.triton_ops.limits import on
from msa_kernels.triton_ops.tiles import QUERY_OUTER, QUERY_OUTER_E4M3, halvings, padded, tile_of

#: Factors of E4M3 queries, keys and values; None for 1.
Factors = tuple[Tensor | None, Tensor | None, Tensor | None]
#: Programs that keep a GPU busy: below it the slots of a row are split among several.
_PROGRAMS = 1024
#: Fewest slots that are worth a program of their own.
_FEWEST = 2


def attend_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    factors: Factors = (None, None, None),
) -> None:
    """Fill in ``out`` ``[Tq, Hq, D]`` and ``lse`` ``[Tq, Hq]``, both contiguous."""
    sequences = len(cu_q) - 1
    _launch(
        q, k, v, selection, out, lse, cu_q, cu_k, cu_q,
        token_strides=(*k.stride(), *v.stride()),
        page_strides=(0, 0, 0, 0),
        scale=scale,
        factors=factors,
        sequences=sequences,
        queries=0,
        block=block,
        paged=False,
    )  # fmt: skip


def attend_pages(
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
    """The same for ``q`` ``[B * Q, Hq, D]`` over pages ``[P, Hkv, block, D]``."""
    page, group, token, dim = k_pages.stride()
    v_page, v_group, v_token, v_dim = v_pages.stride()
    _launch(
        q, k_pages, v_pages, selection, out, lse, k_lens, k_lens, page_table,
        token_strides=(token, group, dim, v_token, v_group, v_dim),
        page_strides=(page, v_page, *page_table.stride()),
        scale=scale,
        factors=factors,
        sequences=0,
        queries=len(q) // len(k_lens),
        block=k_pages.shape[2],
        paged=True,
    )  # fmt: skip


def splits_of(programs: int, topk: int) -> int:
    """Into how many runs the slots of a row are cut, so that there are programs enough."""
    wanted = min(_PROGRAMS // max(programs, 1), topk // _FEWEST)
    # The largest power of two that is not above it: few programs to compile.
    return 1 << max(wanted.bit_length() - 1, 0)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    out: Tensor,
    lse: Tensor,
    row_totals: Tensor,
    key_totals: Tensor,
    page_table: Tensor,
    *,
    token_strides: tuple[int, ...],
    page_strides: tuple[int, ...],
    scale: float,
    factors: Factors,
    sequences: int,
    queries: int,
    block: int,
    paged: bool,
) -> None:
    rows, heads, dim = q.shape
    groups, topk = selection.shape[1:]
    if not lse.numel():
        return
    tile = tile_of(QUERY_OUTER_E4M3 if k.dtype == E4M3 else QUERY_OUTER, q)
    splits = splits_of(rows * groups, topk)
    outs, lses = out[None], lse[None]
    if splits > 1:
        outs = q.new_empty((splits, *out.shape), dtype=torch.float32)
        lses = lse.new_empty((splits, *lse.shape))
    with on(q):
        attend_slots[rows * groups, splits](
            q,
            k,
            v,
            selection,
            outs,
            lses,
            row_totals.contiguous(),
            key_totals.contiguous(),
            page_table,
            *(None if x is None else x.contiguous() for x in factors),
            *q.stride(),
            *token_strides,
            *selection.stride(),
            *outs.stride()[:3],
            lses.stride(0),
            *page_strides,
            float(scale),
            sequences,
            halvings(sequences),
            queries,
            GROUPS=groups,
            SHARE=heads // groups,
            HEADS=padded(heads // groups, tile.rows),
            DIM=dim,
            DIMS=padded(dim),
            BLOCK=block,
            WIDTH=padded(block),
            TOPK=topk,
            SLOTS=padded(topk, 2),
            PART=triton.cdiv(topk, splits),
            PAGED=paged,
            **tile.options,
        )
    if splits > 1:
        merge(outs, lses, out, lse)
