"""One query and group at a time: an online softmax over its selected blocks, packed or paged."""

import triton
import triton.language as tl

from msa_kernels.triton_ops.kernel import (
    position_shift,
    sequence_of_row,
    slot_block,
    widened,
)


@triton.jit(do_not_specialize=["sequences", "steps", "queries"])
def attend_slots(
    q,
    k,
    v,
    selection,
    out,
    lse,
    row_totals,
    key_totals,
    page_table,
    q_descale,
    k_descale,
    v_descale,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_kt,
    stride_kg,
    stride_kd,
    stride_vt,
    stride_vg,
    stride_vd,
    stride_st,
    stride_sg,
    stride_sk,
    stride_os,
    stride_ot,
    stride_oh,
    stride_ls,
    stride_pk,
    stride_pv,
    stride_pb,
    stride_pw,
    scale,
    sequences,
    steps,
    queries,
    GROUPS: tl.constexpr,
    SHARE: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    TOPK: tl.constexpr,
    SLOTS: tl.constexpr,
    PART: tl.constexpr,
    PAGED: tl.constexpr,
):
    """The ``SHARE`` heads of a group of one query over ``PART`` slots of its selection.

    Program (i, s): row i // GROUPS, group i % GROUPS, slots from s * PART on. Packed, a row's
    sequence follows from ``row_totals`` (cu_q) and its keys from ``key_totals`` (cu_k); paged, a
    request has ``queries`` rows, ``key_totals`` are the lengths and ``stride_kt`` is that of a
    token in a page. ``q_descale`` ``[heads]``, ``k_descale`` and ``v_descale`` ``[GROUPS]`` are the
    factors of E4M3 elements, or None. ``out`` ``[splits, rows, heads, DIM]`` has a last stride of
    1; ``lse`` is contiguous ``[splits, rows, heads]``.
    """
    row = tl.program_id(0) // GROUPS
    group = tl.program_id(0) % GROUPS
    split = tl.program_id(1)
    if PAGED:
        request = row // queries
        position = tl.load(key_totals + request) - queries + row % queries
        pages = page_table + request.to(tl.int64) * stride_pb
        first_key = row * 0
    else:
        sequence = sequence_of_row(row_totals, row, sequences, steps)
        position = row + position_shift(row_totals, key_totals, sequence)
        first_key = tl.load(key_totals + sequence)
    newest = position // BLOCK

    head = tl.arange(0, HEADS)
    dim = tl.arange(0, DIMS).to(tl.int64)  # a channel's stride may be that of a whole batch
    token = tl.arange(0, WIDTH)
    slot = tl.arange(0, SLOTS)
    fits = (head < SHARE)[:, None] & (dim < DIM)[None, :]
    heads = (group * SHARE + head).to(tl.int64)
    query = tl.load(
        q + row.to(tl.int64) * stride_qt + heads[:, None] * stride_qh + dim[None, :] * stride_qd,
        mask=fits,
        other=0.0,
    )  # [HEADS, DIMS]
    query = widened(query)
    factor = scale * 1.0
    if q_descale is not None:
        factor *= tl.load(q_descale + heads, mask=head < SHARE, other=0.0)[:, None]
    if k_descale is not None:
        factor *= tl.load(k_descale + group)
    entries = selection + row.to(tl.int64) * stride_st + group.to(tl.int64) * stride_sg
    chosen = tl.load(entries + slot.to(tl.int64) * stride_sk, mask=slot < TOPK, other=-1)  # [SLOTS]
    k += group.to(tl.int64) * stride_kg
    v += group.to(tl.int64) * stride_vg

    top = tl.full([HEADS], float("-inf"), tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    acc = tl.zeros([HEADS, DIMS], tl.float32)
    for at in range(split * PART, split * PART + PART):
        block, taken = slot_block(chosen, slot, at, newest)
        if PAGED:
            page = tl.load(pages + block * stride_pw, mask=taken, other=0).to(tl.int64)
            keys, values = k + page * stride_pk, v + page * stride_pv
        else:
            start = (first_key + block * BLOCK).to(tl.int64)
            keys, values = k + start * stride_kt, v + start * stride_vt
        # What is not visible is not read: it may hold NaN, and NaN times zero is NaN.
        seen = tl.where(taken, tl.minimum(position + 1 - block * BLOCK, BLOCK), 0)
        readable = (token < seen)[:, None] & (dim < DIM)[None, :]
        key = tl.load(
            keys + token.to(tl.int64)[:, None] * stride_kt + dim[None, :] * stride_kd,
            mask=readable,
            other=0.0,
        )  # [WIDTH, DIMS]
        key = key.to(query.dtype)
        logits = tl.dot(query, tl.trans(key), input_precision="ieee") * factor
        logits = tl.where((token < seen)[None, :], logits, float("-inf"))
        larger = tl.maximum(top, tl.max(logits, 1))
        base = tl.where(larger == float("-inf"), 0.0, larger)
        weight = tl.exp(logits - base[:, None])
        fade = tl.exp(top - base)
        value = tl.load(
            values + token.to(tl.int64)[:, None] * stride_vt + dim[None, :] * stride_vd,
            mask=readable,
            other=0.0,
        )
        acc *= fade[:, None]
        value = value.to(query.dtype)
        acc += tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        total = total * fade + tl.sum(weight, 1)
        top = larger

    # Nothing visible: a total of zero. One of NaN is passed on, and not taken for nothing.
    whole = tl.where(total == 0, 1.0, total)
    result = acc / whole[:, None]
    if v_descale is not None:
        result *= tl.load(v_descale + group)
    out += split.to(tl.int64) * stride_os + row.to(tl.int64) * stride_ot
    tl.store(
        out + heads[:, None] * stride_oh + dim[None, :], result.to(out.dtype.element_ty), mask=fits
    )
    lse += split.to(tl.int64) * stride_ls + row.to(tl.int64) * (GROUPS * SHARE)
    size = tl.where(total == 0, float("-inf"), top + tl.log(whole))
    tl.store(lse + heads, size, mask=head < SHARE)
