"""One key block at a time: the queries that chose it are gathered into one product."""

import triton
import triton.language as tl

from msa_kernels.triton_ops.kernel import (
    first_tile,
    newest_block,
    position_shift,
    sequence_of_tile,
    widened,
)


@triton.jit(do_not_specialize=["low", "count", "blocks", "tokens", "sequences", "steps"])
def name_lists(
    selection,
    lists,
    cu_q,
    cu_k,
    stride_st,
    stride_sg,
    stride_sk,
    low,
    count,
    blocks,
    tokens,
    sequences,
    steps,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    TOPK: tl.constexpr,
    SLOTS: tl.constexpr,
    ITEMS: tl.constexpr,
):
    """The list that every slot of ``ITEMS`` of ``count`` pairs of row and group belongs to.

    List ``group * blocks + b`` is that of block b of the batch; sequence s has the blocks from
    ``cu_k[s] // BLOCK + s`` on. What is empty, not visible or there twice goes into the list
    ``GROUPS * blocks``, which nobody reads. ``lists`` is contiguous.
    """
    item = tl.program_id(0).to(tl.int64) * ITEMS + tl.arange(0, ITEMS)
    live = item < count
    item = tl.minimum(item, count - 1)
    group = (item % GROUPS).to(tl.int32)
    row = low + (item // GROUPS).to(tl.int32)
    newest, sequence = newest_block(cu_q, cu_k, row, sequences, steps, BLOCK)
    slot = tl.arange(0, SLOTS)
    place = row.to(tl.int64) * stride_st + group.to(tl.int64) * stride_sg
    chosen = tl.load(
        selection + place[:, None] + slot.to(tl.int64)[None, :] * stride_sk,
        mask=(slot < TOPK)[None, :],
        other=-1,
    )  # [ITEMS, SLOTS]
    before = (slot[:, None] > slot[None, :])[None, :, :]
    twice = tl.sum(((chosen[:, :, None] == chosen[:, None, :]) & before).to(tl.int32), 2) > 0
    taken = (chosen >= 0) & (chosen <= newest[:, None]) & (twice == 0)
    first = group * blocks + first_tile(cu_k, sequence, 0, tokens, BLOCK)
    name = tl.where(taken, first[:, None] + chosen, GROUPS * blocks)
    tl.store(
        lists + item[:, None] * TOPK + slot[None, :],
        name,
        mask=live[:, None] & (slot < TOPK)[None, :],
    )


@triton.jit(
    do_not_specialize=["low", "blocks", "tokens", "entries", "list_steps", "sequences", "steps"]
)
def attend_list(
    q,
    k,
    v,
    order,
    starts,
    outs,
    lses,
    cu_q,
    cu_k,
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
    scale,
    low,
    blocks,
    tokens,
    entries,
    list_steps,
    sequences,
    steps,
    GROUPS: tl.constexpr,
    SHARE: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    TOPK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """A tile of the queries of one list against its block: outputs with LSEs, one a slot.

    ``order`` holds the slots of the selection list by list, ``starts`` where each list begins. A
    slot writes to its own place of ``outs`` ``[rows, heads, TOPK, DIM]`` and ``lses``
    ``[rows, heads, TOPK]``, so nothing is added up here and the order in a list does not matter.
    ``q_descale`` ``[heads]``, ``k_descale`` and ``v_descale`` ``[GROUPS]``: factors of E4M3
    elements, or None.
    """
    QUERIES: tl.constexpr = ROWS // SHARE
    lists = GROUPS * blocks
    tile = tl.program_id(0)
    this = sequence_of_tile(starts, tile, lists, list_steps, 0, entries, QUERIES)
    first = tl.load(starts + this)
    stop = tl.load(starts + this + 1)
    first += (tile - first // QUERIES - this) * QUERIES
    if first < stop:
        group = this // blocks
        sequence = sequence_of_tile(cu_k, this % blocks, sequences, steps, 0, tokens, BLOCK)
        key_start = tl.load(cu_k + sequence)
        block = this % blocks - first_tile(cu_k, sequence, 0, tokens, BLOCK)
        shift = position_shift(cu_q, cu_k, sequence)

        member = tl.arange(0, ROWS)
        entry = first + member // SHARE
        live = (entry < stop) & (member < QUERIES * SHARE)
        slot = tl.load(order + entry, mask=live, other=0)  # int64 [ROWS]
        row = slot // (GROUPS * TOPK)
        head = group * SHARE + member % SHARE
        dim = tl.arange(0, DIMS).to(tl.int64)  # a channel's stride may be that of a whole batch
        fits = live[:, None] & (dim < DIM)[None, :]
        place = (row + low) * stride_qt + head.to(tl.int64) * stride_qh
        query = tl.load(q + place[:, None] + dim[None, :] * stride_qd, mask=fits, other=0.0)
        query = widened(query)
        factor = scale * 1.0
        if q_descale is not None:
            factor *= tl.load(q_descale + head, mask=live, other=0.0)[:, None]
        if k_descale is not None:
            factor *= tl.load(k_descale + group)

        token = tl.arange(0, WIDTH)
        newest = row.to(tl.int32) + (low + shift - block * BLOCK)  # token of the block, or beyond
        newest = tl.where(live, tl.minimum(newest, BLOCK - 1), -1)
        # What no row of this tile sees is not read: it may hold NaN.
        readable = (token <= tl.max(newest, 0))[:, None] & (dim < DIM)[None, :]
        where = (key_start + block * BLOCK + token).to(tl.int64)[:, None]
        key = tl.load(
            k + group.to(tl.int64) * stride_kg + where * stride_kt + dim[None, :] * stride_kd,
            mask=readable,
            other=0.0,
        )  # [WIDTH, DIMS]
        key = key.to(query.dtype)
        logits = tl.dot(query, tl.trans(key), input_precision="ieee") * factor
        logits = tl.where(token[None, :] <= newest[:, None], logits, float("-inf"))
        top = tl.max(logits, 1)
        base = tl.where(top == float("-inf"), 0.0, top)
        weight = tl.exp(logits - base[:, None])
        total = tl.sum(weight, 1)
        total = tl.where(total == 0, 1.0, total)  # nothing to see: output 0, LSE -inf
        value = tl.load(
            v + group.to(tl.int64) * stride_vg + where * stride_vt + dim[None, :] * stride_vd,
            mask=readable,
            other=0.0,
        )
        value = value.to(query.dtype)
        acc = tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        acc = acc / total[:, None]
        if v_descale is not None:
            acc *= tl.load(v_descale + group)
        into = (row * (GROUPS * SHARE) + head) * TOPK + slot % TOPK
        tl.store(
            outs + into[:, None] * DIM + dim[None, :], acc.to(outs.dtype.element_ty), mask=fits
        )
        tl.store(lses + into, top + tl.log(total), mask=live)
