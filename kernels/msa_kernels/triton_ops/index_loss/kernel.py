"""The index branch's loss and gradient; both softmaxes are computed again for the keys."""

import triton
import triton.language as tl

from msa_kernels.triton_ops.kernel import (
    first_tile,
    position_shift,
    sequence_of_row,
    sequence_of_tile,
    slot_block,
)


@triton.jit
def slot_logits(
    query,
    index_query,
    k,
    k_idx,
    start,
    seen,
    stride_kt,
    stride_kd,
    stride_xt,
    stride_xd,
    scale,
    index_scale,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    INDEX: tl.constexpr,
    INDEXES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """A block from ``start`` on: logits ``[HEADS, WIDTH]``, index logits ``[WIDTH]``, index keys.

    What is not ``seen`` is not read, and -inf.
    """
    token = tl.arange(0, WIDTH)
    dim = tl.arange(0, DIMS).to(tl.int64)
    channel = tl.arange(0, INDEXES).to(tl.int64)
    where = (start + token.to(tl.int64))[:, None]
    key = tl.load(
        k + where * stride_kt + dim[None, :] * stride_kd,
        mask=(token < seen)[:, None] & (dim < DIM)[None, :],
        other=0.0,
    )
    index_key = tl.load(
        k_idx + where * stride_xt + channel[None, :] * stride_xd,
        mask=(token < seen)[:, None] & (channel < INDEX)[None, :],
        other=0.0,
    ).to(tl.float32)
    logits = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
    logits = tl.where((token < seen)[None, :], logits, float("-inf"))
    told = tl.sum(index_query[None, :] * index_key, 1) * index_scale
    return logits, tl.where(token < seen, told, float("-inf")), index_key


@triton.jit(do_not_specialize=["sequences", "steps"])
def index_rows(
    q_idx,
    k_idx,
    q,
    k,
    selection,
    losses,
    lse,
    index_lse,
    dq_idx,
    cu_q,
    cu_k,
    stride_it,
    stride_ig,
    stride_id,
    stride_xt,
    stride_xg,
    stride_xd,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_kt,
    stride_kg,
    stride_kd,
    stride_st,
    stride_sg,
    stride_sk,
    scale,
    index_scale,
    factor,
    sequences,
    steps,
    GROUPS: tl.constexpr,
    SHARE: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    INDEX: tl.constexpr,
    INDEXES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    TOPK: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One query and group: its loss, both LSEs, and the gradient of its index query.

    Contiguous, float32: ``losses`` and ``index_lse`` ``[rows, GROUPS]``, ``lse``
    ``[rows, GROUPS * SHARE]``, ``dq_idx`` ``[rows, GROUPS, INDEX]``, which is multiplied by
    ``factor``. LSEs of what sees nothing are 0.
    """
    row = tl.program_id(0) // GROUPS
    group = tl.program_id(0) % GROUPS
    sequence = sequence_of_row(cu_q, row, sequences, steps)
    position = row + position_shift(cu_q, cu_k, sequence)
    first_key = tl.load(cu_k + sequence)
    newest = position // BLOCK

    head = tl.arange(0, HEADS)
    dim = tl.arange(0, DIMS).to(tl.int64)
    channel = tl.arange(0, INDEXES).to(tl.int64)
    slot = tl.arange(0, SLOTS)
    far, apart = row.to(tl.int64), group.to(tl.int64)
    heads = apart * SHARE + head
    query = tl.load(
        q + far * stride_qt + heads[:, None] * stride_qh + dim[None, :] * stride_qd,
        mask=(head < SHARE)[:, None] & (dim < DIM)[None, :],
        other=0.0,
    )  # [HEADS, DIMS]
    index_query = tl.load(
        q_idx + far * stride_it + apart * stride_ig + channel * stride_id,
        mask=channel < INDEX,
        other=0.0,
    ).to(tl.float32)  # [INDEXES]
    entries = selection + far * stride_st + apart * stride_sg
    chosen = tl.load(entries + slot.to(tl.int64) * stride_sk, mask=slot < TOPK, other=-1)
    k += apart * stride_kg
    k_idx += apart * stride_xg

    top = tl.full([HEADS], float("-inf"), tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    index_top = tl.max(top, 0)
    index_total = tl.sum(total, 0)
    for at in range(TOPK):
        block, taken = slot_block(chosen, slot, at, newest)
        start = (first_key + block * BLOCK).to(tl.int64)
        seen = tl.where(taken, tl.minimum(position + 1 - block * BLOCK, BLOCK), 0)
        logits, told, _ = slot_logits(
            query, index_query, k, k_idx, start, seen, stride_kt, stride_kd, stride_xt, stride_xd,
            scale, index_scale, DIM, DIMS, INDEX, INDEXES, WIDTH,
        )  # fmt: skip
        larger = tl.maximum(top, tl.max(logits, 1))
        base = tl.where(larger == float("-inf"), 0.0, larger)
        total = total * tl.exp(top - base) + tl.sum(tl.exp(logits - base[:, None]), 1)
        top = larger
        index_larger = tl.maximum(index_top, tl.max(told, 0))
        index_base = tl.where(index_larger == float("-inf"), 0.0, index_larger)
        index_total *= tl.exp(index_top - index_base)
        index_total += tl.sum(tl.exp(told - index_base), 0)
        index_top = index_larger
    size = tl.where(total == 0, 0.0, top + tl.log(tl.where(total == 0, 1.0, total)))
    index_size = index_top + tl.log(tl.where(index_total == 0, 1.0, index_total))
    index_size = tl.where(index_total == 0, 0.0, index_size)

    loss = tl.sum(total * 0.0, 0)
    acc = tl.zeros([INDEXES], tl.float32)
    for at in range(TOPK):
        block, taken = slot_block(chosen, slot, at, newest)
        start = (first_key + block * BLOCK).to(tl.int64)
        seen = tl.where(taken, tl.minimum(position + 1 - block * BLOCK, BLOCK), 0)
        logits, told, index_key = slot_logits(
            query, index_query, k, k_idx, start, seen, stride_kt, stride_kd, stride_xt, stride_xd,
            scale, index_scale, DIM, DIMS, INDEX, INDEXES, WIDTH,
        )  # fmt: skip
        weight = tl.where((head < SHARE)[:, None], tl.exp(logits - size[:, None]), 0.0)
        teacher = tl.sum(weight, 0) / SHARE  # [WIDTH]
        visible = tl.arange(0, WIDTH) < seen
        told = tl.where(visible, told - index_size, 0.0)
        student = tl.where(visible, tl.exp(told), 0.0)
        # A teacher of nothing costs nothing, whatever the student says.
        surprise = teacher * (tl.log(tl.where(teacher > 0, teacher, 1.0)) - told)
        loss += tl.sum(surprise, 0)
        acc += tl.sum((student - teacher)[:, None] * index_key, 0)
    tl.store(losses + far * GROUPS + group, loss)
    tl.store(index_lse + far * GROUPS + group, index_size)
    tl.store(lse + far * (GROUPS * SHARE) + heads, size, mask=head < SHARE)
    into = dq_idx + (far * GROUPS + group) * INDEX + channel
    tl.store(into, acc * factor, mask=channel < INDEX)


@triton.jit(do_not_specialize=["blocks", "tokens", "sequences", "steps"])
def index_keys(
    q_idx,
    k_idx,
    q,
    k,
    order,
    starts,
    lse,
    index_lse,
    dk_idx,
    cu_q,
    cu_k,
    stride_it,
    stride_ig,
    stride_id,
    stride_xt,
    stride_xg,
    stride_xd,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_kt,
    stride_kg,
    stride_kd,
    scale,
    index_scale,
    factor,
    blocks,
    tokens,
    sequences,
    steps,
    GROUPS: tl.constexpr,
    PARTS: tl.constexpr,
    SHARE: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    INDEX: tl.constexpr,
    INDEXES: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    TOPK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The gradient of ``KEYS`` index keys of a block, over all queries that chose it.

    The ``PARTS`` groups of an index key head come one after the other, each by its list
    (``lists.py``): nothing is added atomically. LSEs are those of ``index_rows``; ``dk_idx`` is
    contiguous float32 ``[tokens, GROUPS / PARTS, INDEX]``, multiplied by ``factor``.
    """
    this = tl.program_id(0) % blocks
    index_head = tl.program_id(0) // blocks
    sequence = sequence_of_tile(cu_k, this, sequences, steps, 0, tokens, BLOCK)
    key_start = tl.load(cu_k + sequence)
    block = this - first_tile(cu_k, sequence, 0, tokens, BLOCK)
    held = tl.load(cu_k + sequence + 1) - key_start - block * BLOCK  # tokens from here on
    if held > 0:  # there are more lists than blocks
        shift = position_shift(cu_q, cu_k, sequence)
        token = tl.program_id(1) * KEYS + tl.arange(0, KEYS)
        dim = tl.arange(0, DIMS).to(tl.int64)
        channel = tl.arange(0, INDEXES).to(tl.int64)
        mine = token < tl.minimum(held, BLOCK)
        where = (key_start + block * BLOCK + token).to(tl.int64)[:, None]
        index_key = tl.load(
            k_idx
            + (index_head * PARTS).to(tl.int64) * stride_xg
            + where * stride_xt
            + channel[None, :] * stride_xd,
            mask=mine[:, None] & (channel < INDEX)[None, :],
            other=0.0,
        )  # [KEYS, INDEXES]
        acc = tl.zeros([KEYS, INDEXES], tl.float32)
        for part in range(PARTS):
            group = (index_head * PARTS + part).to(tl.int64)
            key = tl.load(
                k + group * stride_kg + where * stride_kt + dim[None, :] * stride_kd,
                mask=mine[:, None] & (dim < DIM)[None, :],
                other=0.0,
            )  # [KEYS, DIMS]
            of_group = starts + group * blocks + this
            stop = tl.load(of_group + 1)
            for first in range(tl.load(of_group), stop, ROWS):
                entry = first + tl.arange(0, ROWS)
                live = entry < stop
                row = tl.load(order + entry, mask=live, other=0) // (GROUPS * TOPK)  # int64
                newest = row.to(tl.int32) + (shift - block * BLOCK)
                newest = tl.where(live, tl.minimum(newest, BLOCK - 1), -1)
                visible = token[None, :] <= newest[:, None]
                teacher = tl.zeros([ROWS, KEYS], tl.float32)
                for each in range(SHARE):
                    head = group * SHARE + each
                    query = tl.load(
                        q
                        + (row * stride_qt + head * stride_qh)[:, None]
                        + dim[None, :] * stride_qd,
                        mask=live[:, None] & (dim < DIM)[None, :],
                        other=0.0,
                    )  # [ROWS, DIMS]
                    base = tl.load(lse + row * (GROUPS * SHARE) + head, mask=live, other=0.0)
                    logits = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
                    # Hidden before the exponential, which overflows where nothing bounds it.
                    hidden = tl.where(visible, logits - base[:, None], float("-inf"))
                    teacher += tl.exp(hidden)
                index_query = tl.load(
                    q_idx
                    + (row * stride_it + group * stride_ig)[:, None]
                    + channel[None, :] * stride_id,
                    mask=live[:, None] & (channel < INDEX)[None, :],
                    other=0.0,
                )  # [ROWS, INDEXES]
                base = tl.load(index_lse + row * GROUPS + group, mask=live, other=0.0)
                told = tl.dot(index_query, tl.trans(index_key), input_precision="ieee")
                told = tl.where(visible, told * index_scale - base[:, None], float("-inf"))
                change = tl.exp(told) - teacher / SHARE
                acc += tl.dot(
                    tl.trans(change.to(index_query.dtype)), index_query, input_precision="ieee"
                )
        into = dk_idx + (where * (GROUPS // PARTS) + index_head) * INDEX + channel[None, :]
        tl.store(into, acc * factor, mask=mine[:, None] & (channel < INDEX)[None, :])
