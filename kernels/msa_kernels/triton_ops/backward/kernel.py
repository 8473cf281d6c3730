"""Gradients of attention over a selection; the softmax is computed again from the LSE."""

import triton
import triton.language as tl

from msa_kernels.triton_ops.kernel import (
    first_tile,
    position_shift,
    sequence_of_row,
    sequence_of_tile,
    slot_block,
)


@triton.jit(do_not_specialize=["sequences", "steps"])
def grad_queries(
    dout,
    q,
    k,
    v,
    lse,
    delta,
    selection,
    dq,
    cu_q,
    cu_k,
    stride_ot,
    stride_oh,
    stride_od,
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
    scale,
    sequences,
    steps,
    GROUPS: tl.constexpr,
    SHARE: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    TOPK: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """The ``SHARE`` heads of a group of one query, over the slots of its selection.

    ``lse`` and ``delta`` (rowsum of dO times O) are contiguous ``[rows, heads]``, ``dq`` is
    contiguous ``[rows, heads, DIM]``.
    """
    row = tl.program_id(0) // GROUPS
    group = tl.program_id(0) % GROUPS
    sequence = sequence_of_row(cu_q, row, sequences, steps)
    position = row + position_shift(cu_q, cu_k, sequence)
    first_key = tl.load(cu_k + sequence)
    newest = position // BLOCK

    head = tl.arange(0, HEADS)
    dim = tl.arange(0, DIMS).to(tl.int64)
    token = tl.arange(0, WIDTH)
    slot = tl.arange(0, SLOTS)
    fits = (head < SHARE)[:, None] & (dim < DIM)[None, :]
    heads = (group * SHARE + head).to(tl.int64)
    far = row.to(tl.int64)
    query = tl.load(
        q + far * stride_qt + heads[:, None] * stride_qh + dim[None, :] * stride_qd,
        mask=fits,
        other=0.0,
    )  # [HEADS, DIMS]
    up = tl.load(
        dout + far * stride_ot + heads[:, None] * stride_oh + dim[None, :] * stride_od,
        mask=fits,
        other=0.0,
    )  # [HEADS, DIMS]
    base = tl.load(lse + far * (GROUPS * SHARE) + heads, mask=head < SHARE, other=0.0)
    base = tl.where(base == float("-inf"), 0.0, base)  # a row that sees nothing
    mean = tl.load(delta + far * (GROUPS * SHARE) + heads, mask=head < SHARE, other=0.0)
    entries = selection + far * stride_st + group.to(tl.int64) * stride_sg
    chosen = tl.load(entries + slot.to(tl.int64) * stride_sk, mask=slot < TOPK, other=-1)
    k += group.to(tl.int64) * stride_kg
    v += group.to(tl.int64) * stride_vg

    acc = tl.zeros([HEADS, DIMS], tl.float32)
    for at in range(TOPK):
        block, taken = slot_block(chosen, slot, at, newest)
        start = (first_key + block * BLOCK).to(tl.int64)
        # What is not visible is not read: it may hold NaN, and NaN times zero is NaN.
        seen = tl.where(taken, tl.minimum(position + 1 - block * BLOCK, BLOCK), 0)
        readable = (token < seen)[:, None] & (dim < DIM)[None, :]
        where = start + token.to(tl.int64)[:, None]
        key = tl.load(k + where * stride_kt + dim[None, :] * stride_kd, mask=readable, other=0.0)
        value = tl.load(v + where * stride_vt + dim[None, :] * stride_vd, mask=readable, other=0.0)
        logits = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        weight = tl.where((token < seen)[None, :], tl.exp(logits - base[:, None]), 0.0)
        towards = tl.dot(up, tl.trans(value), input_precision="ieee")
        change = weight * (towards - mean[:, None]) * scale  # of the logits, times the scale
        acc += tl.dot(change.to(key.dtype), key, input_precision="ieee")
    into = dq + far * (GROUPS * SHARE * DIM) + heads[:, None] * DIM + dim[None, :]
    tl.store(into, acc.to(dq.dtype.element_ty), mask=fits)


@triton.jit(do_not_specialize=["blocks", "tokens", "sequences", "steps"])
def grad_keys(
    dout,
    q,
    k,
    v,
    lse,
    delta,
    order,
    starts,
    dk,
    dv,
    cu_q,
    cu_k,
    stride_ot,
    stride_oh,
    stride_od,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_kt,
    stride_kg,
    stride_kd,
    stride_vt,
    stride_vg,
    stride_vd,
    scale,
    blocks,
    tokens,
    sequences,
    steps,
    GROUPS: tl.constexpr,
    SHARE: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    TOPK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """``KEYS`` keys and values of a block, over all queries that chose it, in its list's order.

    A program owns its keys, so nothing is added atomically and the bits are the same every time.
    Lists as in ``key_outer``; ``dk`` and ``dv`` are contiguous ``[tokens, GROUPS, DIM]``.
    """
    QUERIES: tl.constexpr = ROWS // SHARE
    this = tl.program_id(0)
    group = this // blocks
    sequence = sequence_of_tile(cu_k, this % blocks, sequences, steps, 0, tokens, BLOCK)
    key_start = tl.load(cu_k + sequence)
    block = this % blocks - first_tile(cu_k, sequence, 0, tokens, BLOCK)
    held = tl.load(cu_k + sequence + 1) - key_start - block * BLOCK  # tokens from here on
    if held > 0:  # there are more lists than blocks
        shift = position_shift(cu_q, cu_k, sequence)
        token = tl.program_id(1) * KEYS + tl.arange(0, KEYS)
        dim = tl.arange(0, DIMS).to(tl.int64)
        mine = (token < tl.minimum(held, BLOCK))[:, None] & (dim < DIM)[None, :]
        where = (key_start + block * BLOCK + token).to(tl.int64)[:, None]
        apart = group.to(tl.int64)
        key = tl.load(
            k + apart * stride_kg + where * stride_kt + dim[None, :] * stride_kd,
            mask=mine,
            other=0.0,
        )  # [KEYS, DIMS]
        value = tl.load(
            v + apart * stride_vg + where * stride_vt + dim[None, :] * stride_vd,
            mask=mine,
            other=0.0,
        )  # [KEYS, DIMS]
        acc_k = tl.zeros([KEYS, DIMS], tl.float32)
        acc_v = tl.zeros([KEYS, DIMS], tl.float32)
        member = tl.arange(0, ROWS)
        stop = tl.load(starts + this + 1)
        for first in range(tl.load(starts + this), stop, QUERIES):
            entry = first + member // SHARE
            live = (entry < stop) & (member < QUERIES * SHARE)
            row = tl.load(order + entry, mask=live, other=0) // (GROUPS * TOPK)  # int64 [ROWS]
            head = (group * SHARE + member % SHARE).to(tl.int64)
            fits = live[:, None] & (dim < DIM)[None, :]
            places = (row * stride_qt + head * stride_qh)[:, None]
            query = tl.load(q + places + dim[None, :] * stride_qd, mask=fits, other=0.0)
            places = (row * stride_ot + head * stride_oh)[:, None]
            up = tl.load(dout + places + dim[None, :] * stride_od, mask=fits, other=0.0)
            base = tl.load(lse + row * (GROUPS * SHARE) + head, mask=live, other=0.0)
            mean = tl.load(delta + row * (GROUPS * SHARE) + head, mask=live, other=0.0)
            newest = row.to(tl.int32) + (shift - block * BLOCK)
            newest = tl.where(live, tl.minimum(newest, BLOCK - 1), -1)
            visible = token[None, :] <= newest[:, None]
            logits = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
            weight = tl.where(visible, tl.exp(logits - base[:, None]), 0.0)  # [ROWS, KEYS]
            acc_v += tl.dot(tl.trans(weight.to(up.dtype)), up, input_precision="ieee")
            towards = tl.dot(up, tl.trans(value), input_precision="ieee")
            # A hidden value may be NaN: hidden again after the product.
            change = tl.where(visible, weight * (towards - mean[:, None]) * scale, 0.0)
            acc_k += tl.dot(tl.trans(change.to(query.dtype)), query, input_precision="ieee")
        into = (where * GROUPS + apart) * DIM + dim[None, :]
        tl.store(dk + into, acc_k.to(dk.dtype.element_ty), mask=mine)
        tl.store(dv + into, acc_v.to(dv.dtype.element_ty), mask=mine)
