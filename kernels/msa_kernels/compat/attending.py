"""Attention over the lists of queries that :mod:`msa_kernels.compat.lists` makes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msa import checks, fast
from msa.quantized import output_dtype
from msa_kernels.adapters.converting import in_pages
from msa_kernels.compat.lists import (
    Schedule,
    lengths_of,
    require_longest,
    rows_of,
    selection_of,
)


def sparse_atten_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k2q_row_ptr: Tensor,
    k2q_q_indices: Tensor,
    topK: int,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    blk_kv: int = 128,
    causal: bool = False,
    softmax_scale: float | None = None,
    lse_temperature_scale: float = 1.0,
    return_temperature_lse: bool = False,
    partial_dtype: torch.dtype = torch.bfloat16,
    return_softmax_lse: bool = False,
    page_table: Tensor | None = None,
    seqused_k: Tensor | None = None,
    schedule: Schedule | None = None,
    usable_SM_count: int = -1,
    qk_dtype: torch.dtype | None = None,
    pv_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Attention of every query over the blocks in whose lists it stands.

    Args:
        q: ``[T, Hq, D]``, any floating dtype, E4M3 included.
        k: packed ``[Tk, Hkv, D]``, or pages ``[P, Hkv, blk_kv, D]``; of q's dtype or E4M3.
        v: like ``k``.
        k2q_row_ptr: int32 ``[Hkv, rows + 1]``, of ``build_k2q_csr`` for the same lengths.
        k2q_q_indices: int32 ``[Hkv, at least T * topK]``, likewise.
        topK: slots of a query.
        cu_seqlens_q: int32 ``[B + 1]``.
        cu_seqlens_k: int32 ``[B + 1]``, of pages too.
        max_seqlen_q: queries of the longest sequence, or more.
        max_seqlen_k: keys of the longest sequence, or more.
        blk_kv: tokens of a block, and of a page.
        causal: query i sees keys up to k_len - q_len + i; otherwise all of its sequence.
        softmax_scale: factor on the logits; D ** -0.5 by default.
        lse_temperature_scale: divisor of the logits, above 0, in the third result.
        return_temperature_lse: whether there is a third result.
        partial_dtype: nothing here: sums are of wide numbers.
        return_softmax_lse: whether there is a second result.
        page_table: int32 ``[B, W]``, the page of every block, or None where keys are packed.
        seqused_k: int32 ``[B]``, keys of every sequence in its pages, where that is not what
            ``cu_seqlens_k`` says.
        schedule: of the same ``build_k2q_csr``, or None.
        usable_SM_count: of the package's schedule; nothing here.
        qk_dtype: nothing here: products are of wide numbers.
        pv_dtype: likewise.

    Returns:
        the output ``[T, Hq, D]`` in q's dtype (bfloat16 for E4M3); with it the natural log-sum-exp
        float32 ``[T, Hq]``, and the same of logits by the temperature. A row that sees nothing
        gives 0 and -inf.

    Raises:
        TypeError: a dtype that is not supported.
        ValueError: sizes or lengths that do not fit; lists or a schedule of another selection.
    """
    del partial_dtype, usable_SM_count, qk_dtype, pv_dtype
    _require_keys(q, k, v, blk_kv, paged=page_table is not None)
    if not 0 < lse_temperature_scale < math.inf:
        raise ValueError(
            f"lse_temperature_scale: wanted a finite number above 0, got {lse_temperature_scale!r}"
        )
    if return_temperature_lse and not return_softmax_lse:
        raise ValueError("return_softmax_lse: wanted True for return_temperature_lse, got False")
    q_lens = lengths_of("cu_seqlens_q", cu_seqlens_q, len(q))
    packed = len(k) if page_table is None else None
    k_lens = lengths_of("cu_seqlens_k", cu_seqlens_k, packed, len(q_lens))
    require_longest("max_seqlen_q", max_seqlen_q, q_lens)
    require_longest("max_seqlen_k", max_seqlen_k, k_lens)
    _require_pages(page_table, seqused_k, len(q_lens))
    rows = rows_of(k_lens, blk_kv)
    _require_lists(k2q_row_ptr, k2q_q_indices, q, k, topK, len(rows))
    _require_schedule(schedule, k2q_row_ptr, q.shape[1] // k.shape[1])

    selection = selection_of(k2q_row_ptr, k2q_q_indices, rows, cu_seqlens_q, topK)
    if page_table is None:
        (k, page_table), (v, _) = (in_pages(x, cu_seqlens_k, blk_kv) for x in (k, v))
    used = cu_seqlens_k.diff() if seqused_k is None else seqused_k
    lens = torch.tensor(q_lens, device=q.device)
    sequence = torch.arange(len(q_lens), device=q.device).repeat_interleave(lens)
    local = torch.arange(len(q), device=q.device) - cu_seqlens_q[:-1][sequence]
    # Each query is a request of its own, whose keys are those that it may see.
    seen = used[sequence] if not causal else (used - lens)[sequence] + local + 1
    scale = q.shape[2] ** -0.5 if softmax_scale is None else softmax_scale
    given = (q, k, v, selection, page_table[sequence], seen)
    out, lse = _attend(*given, scale)
    if not return_softmax_lse:
        return out
    if not return_temperature_lse:
        return out, lse
    return out, lse, _attend(*given, scale / lse_temperature_scale)[1]


def _attend(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    page_table: Tensor,
    seen: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Out and LSE of queries ``[T, Hq, D]`` with a row of ``page_table`` each."""
    out = torch.zeros_like(q, dtype=output_dtype(q))
    lse = q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)
    busy = (seen > 0).nonzero()[:, 0]
    if len(busy):
        part = fast.sparse_decode(
            q[busy, None],
            k_pages,
            v_pages,
            selection[busy, None],
            page_table=page_table[busy],
            k_lens=seen[busy].int(),
            scale=scale,
        )
        out[busy], lse[busy] = (x[:, 0] for x in part)
    return out, lse


def _require_keys(q: Tensor, k: Tensor, v: Tensor, block: int, *, paged: bool) -> None:
    checks.require_positive("blk_kv", block)
    checks.require_tensor("q", q, ("Tq", "Hq", "D"), quantized=True)
    wanted: tuple[int | str, ...] = ("P", "Hkv", block) if paged else ("Tk", "Hkv")
    checks.require_tensor("k", k, (*wanted, q.shape[2]), like=q, quantized=True)
    checks.require_tensor("v", v, tuple(k.shape), like=k)
    checks.require_groups(q.shape[1], k.shape[1])


def _require_pages(page_table: Tensor | None, seqused_k: Tensor | None, sequences: int) -> None:
    if page_table is None and seqused_k is not None:
        raise ValueError("seqused_k: wanted None where page_table is, got lengths")
    for name, x, axes in (("page_table", page_table, 2), ("seqused_k", seqused_k, 1)):
        if x is not None and (x.dtype != torch.int32 or x.ndim != axes or len(x) != sequences):
            shape = f"[{sequences}, W]" if axes == 2 else f"[{sequences}]"
            raise ValueError(f"{name}: wanted int32 {shape}, got {checks.came(x)}")


def _require_lists(
    row_ptr: Tensor, listed: Tensor, q: Tensor, k: Tensor, topk: int, rows: int
) -> None:
    """The lists are of these tensors' sizes."""
    checks.require_positive("topK", topk)
    groups, least = k.shape[1], len(q) * topk
    if row_ptr.dtype != torch.int32 or tuple(row_ptr.shape) != (groups, rows + 1):
        raise ValueError(
            f"k2q_row_ptr: wanted int32 [{groups}, {rows + 1}] for these keys in blocks of "
            f"blk_kv, got {checks.came(row_ptr)}"
        )
    fits = listed.ndim == 2 and len(listed) == groups and listed.shape[1] >= least
    if listed.dtype != torch.int32 or not fits:
        raise ValueError(
            f"k2q_q_indices: wanted int32 [{groups}, at least {least}], got {checks.came(listed)}"
        )


def _require_schedule(schedule: object, row_ptr: Tensor, heads: int) -> None:
    """What the kernels would read wrongly without a word: another selection's schedule."""
    if schedule is None:
        return
    if not isinstance(schedule, Schedule) or not torch.equal(schedule.row_ptr, row_ptr):
        raise ValueError("schedule: wanted the one that came with k2q_row_ptr, got another")
    if schedule.heads != heads:
        raise ValueError(
            f"schedule: wanted one for qhead_per_kv {heads}, as q and k have, got {schedule.heads}"
        )
