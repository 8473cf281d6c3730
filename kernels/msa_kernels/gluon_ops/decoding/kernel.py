"""Decode: the heads of one query against its selected pages, in a pipeline.

A program takes a run of the slots of one query and group. A *fetcher* copies the page of one slot
after the other into a ring; each slot of the selection gets a partial output with its LSE, so
nothing is rescaled and programs share nothing. The rows of a product are the group's heads; the
rest of its 128 rows are computed in vain, which costs less than the pages take to come. Signals:

    q_full           fetcher -> who multiplies   the queries have come
    k_full[slot]     fetcher -> who multiplies   the keys of a page have come
    k_empty[slot]    who multiplies -> fetcher   they have been read
    v_full, v_empty                              the same of its values
    s_full[tile]     multiplier -> softmax       logits are there *
    p_full[tile]     softmax -> multiplier       weights are there, logits were read,
                                                 values beyond the last key are zeros *
    o_full[tile]     multiplier -> softmax       outputs are there, weights were read *

Pages of eight or four bits are copied into rings of their own, with signals of their own, from
which a *widener* fills those above.

Those with a star are those of tensor memory.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    allocate_tensor_memory,
    tcgen05_mma,
)
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
)

from msa_kernels.gluon_ops.kernel import (
    load_scales,
    logit_factor,
    softmax_tile,
    widen_rows,
    widen_tile,
)
from msa_kernels.gluon_ops.language import bulk_load, product_registers


@gluon.jit
def fetch(
    q_box,
    k_box,
    v_box,
    slots,
    query,
    keys,
    values,
    q_full,
    k_full,
    k_empty,
    v_full,
    v_empty,
    q_row,
    steps,
    STAGES: gl.constexpr,
    Q_BYTES: gl.constexpr,
    PAGE_BYTES: gl.constexpr,
):
    """Copy the queries once, and the page of each of ``steps`` slots into the rings."""
    if steps > 0:
        mbarrier.expect(q_full, Q_BYTES)
        bulk_load(q_box, [q_row, 0], q_full, query)
    for step in range(steps):
        stage = step % STAGES
        phase = ((step // STAGES) & 1) ^ 1
        start = gl.load(slots + step * 3)
        mbarrier.wait(k_empty.index(stage), phase)
        mbarrier.expect(k_full.index(stage), PAGE_BYTES)
        bulk_load(k_box, [start, 0], k_full.index(stage), keys.index(stage))
        mbarrier.wait(v_empty.index(stage), phase)
        mbarrier.expect(v_full.index(stage), PAGE_BYTES)
        bulk_load(v_box, [start, 0], v_full.index(stage), values.index(stage))


@gluon.jit
def page_scales(scales, slots, step, steps, ROWS: gl.constexpr, DIM: gl.constexpr):
    """Scales of the tokens that count of the page of a slot; zeros behind the last slot."""
    known = step < steps
    start = gl.load(slots + step * 3, mask=known, other=0)
    tokens = gl.load(slots + step * 3 + 1, mask=known, other=0)
    return load_scales(scales, start, 0, tokens, ROWS, DIM, DIM // 16)


@gluon.jit
def widen_pages(
    k_scales,
    v_scales,
    slots,
    raw_keys,
    raw_values,
    keys,
    values,
    rk_full,
    rk_empty,
    rv_full,
    rv_empty,
    k_full,
    k_empty,
    v_full,
    v_empty,
    steps,
    BLOCK: gl.constexpr,
    DIM: gl.constexpr,
    STAGES: gl.constexpr,
    WIDES: gl.constexpr,
):
    """The pages in a dtype of sixteen bits, which has all values of E4M3 and NVFP4.

    Scales are asked for one tile ahead.
    """
    k_scale = page_scales(k_scales, slots, 0, steps, BLOCK, DIM)
    for step in range(steps):
        v_scale = page_scales(v_scales, slots, step, steps, BLOCK, DIM)
        stage = step % STAGES
        into = step % WIDES
        come = (step // STAGES) & 1
        free = ((step // WIDES) & 1) ^ 1
        mbarrier.wait(rk_full.index(stage), come)
        mbarrier.wait(k_empty.index(into), free)
        widen_tile(raw_keys.index(stage), keys.index(into), k_scales, k_scale, BLOCK, BLOCK, DIM)
        mbarrier.arrive(rk_empty.index(stage), count=1)
        fence_async_shared()
        mbarrier.arrive(k_full.index(into), count=1)
        k_scale = page_scales(k_scales, slots, step + 1, steps, BLOCK, DIM)
        tokens = gl.load(slots + step * 3 + 1)
        mbarrier.wait(rv_full.index(stage), come)
        mbarrier.wait(v_empty.index(into), free)
        widen_tile(
            raw_values.index(stage), values.index(into), v_scales, v_scale, tokens, BLOCK, DIM
        )
        mbarrier.arrive(rv_empty.index(stage), count=1)
        fence_async_shared()
        mbarrier.arrive(v_full.index(into), count=1)


@gluon.jit
def multiply(
    query,
    keys,
    values,
    weights,
    logits,
    outputs,
    q_full,
    k_full,
    k_empty,
    v_full,
    v_empty,
    s_full,
    p_full,
    o_full,
    steps,
    STAGES: gl.constexpr,
    TILES: gl.constexpr,
):
    """Two products a page into tensor memory, the logits one page ahead of the outputs."""
    if steps > 0:
        mbarrier.wait(q_full, 0)
    for step in range(steps + 1):
        if step < steps:
            stage = step % STAGES
            tile = step % TILES
            mbarrier.wait(k_full.index(stage), (step // STAGES) & 1)
            # The logits of this tile's last use were read before its weights were there, which the
            # product behind them has waited for. Likewise its outputs, before the next weights.
            tcgen05_mma(
                query,
                keys.index(stage).permute((1, 0)),
                logits.index(tile),
                use_acc=False,
                mbarriers=[k_empty.index(stage), s_full.index(tile)],
            )
        if step > 0:
            use = step - 1
            stage = use % STAGES
            tile = use % TILES
            mbarrier.wait(v_full.index(stage), (use // STAGES) & 1)
            mbarrier.wait(p_full.index(tile), (use // TILES) & 1)
            tcgen05_mma(
                weights.index(tile),
                values.index(stage),
                outputs.index(tile),
                use_acc=False,
                mbarriers=[v_empty.index(stage), o_full.index(tile)],
            )


@gluon.jit
def store_slot(
    out,
    outs,
    slots,
    item,
    step,
    layout: gl.constexpr,
    SHARE: gl.constexpr,
    DIM: gl.constexpr,
    TOPK: gl.constexpr,
    ROWS: gl.constexpr,
):
    """The heads of a tile to the slot of the selection whose page it was."""
    member = gl.arange(0, ROWS, gl.SliceLayout(1, layout))
    channel = gl.arange(0, DIM, gl.SliceLayout(0, layout))
    slot = gl.load(slots + step * 3 + 2)
    place = ((item.to(gl.int64) * SHARE + member) * TOPK + slot) * DIM
    into = outs + place[:, None] + channel[None, :]
    gl.store(into, out.to(outs.dtype.element_ty), mask=(member < SHARE)[:, None])


@gluon.jit
def attend_slots(
    outs,
    lses,
    slots,
    q_factors,
    k_factors,
    v_factors,
    query,
    keys,
    values,
    weights,
    logits,
    outputs,
    q_full,
    k_full,
    k_empty,
    v_full,
    v_empty,
    s_full,
    p_full,
    o_full,
    item,
    scale,
    steps,
    GROUPS: gl.constexpr,
    SHARE: gl.constexpr,
    DIM: gl.constexpr,
    BLOCK: gl.constexpr,
    TOPK: gl.constexpr,
    ROWS: gl.constexpr,
    STAGES: gl.constexpr,
    TILES: gl.constexpr,
    WIDES: gl.constexpr,
    TENSOR_MEMORY: gl.constexpr,
):
    """Softmax of each page, and its partial outputs, one page behind where products go on."""
    warps: gl.constexpr = gl.num_warps()
    s_layout: gl.constexpr = product_registers(TENSOR_MEMORY, ROWS, BLOCK, query.dtype, warps)
    o_layout: gl.constexpr = product_registers(TENSOR_MEMORY, ROWS, DIM, values.dtype, warps)
    along: gl.constexpr = gl.SliceLayout(1, s_layout)
    member = gl.arange(0, ROWS, along)
    live = member < SHARE
    group = item % GROUPS
    head = group * SHARE + gl.minimum(member, SHARE - 1)
    factor = logit_factor(q_factors, k_factors, scale, head, group, ROWS, along)
    share = gl.full([ROWS], 0.0, gl.float32, along)
    if TENSOR_MEMORY:
        for step in range(steps + 1):
            last = share
            if step < steps:
                tile = step % TILES
                mbarrier.wait(s_full.index(tile), (step // TILES) & 1)
                logit = logits.index(tile).load(s_layout)
                weight, share = weigh_page(
                    logit, lses, slots, factor, v_factors, live, member, item, group, step,
                    s_layout, SHARE, BLOCK, TOPK,
                )  # fmt: skip
                if WIDES == 0:
                    stage = step % STAGES
                    mbarrier.wait(v_full.index(stage), (step // STAGES) & 1)
                    mend_values(values.index(stage), slots, step, BLOCK, DIM)
                # What read the weights of this tile's last use has ended: its outputs were waited
                # for, since there are two tiles at least.
                weights.index(tile).store(weight.to(values.dtype))
                fence_async_shared()
                mbarrier.arrive(p_full.index(tile), count=1)
            if step > 0:
                use = step - 1
                tile = use % TILES
                mbarrier.wait(o_full.index(tile), (use // TILES) & 1)
                out = outputs.index(tile).load(o_layout)
                out = out * gl.convert_layout(last, gl.SliceLayout(1, o_layout))[:, None]
                store_slot(out, outs, slots, item, use, o_layout, SHARE, DIM, TOPK, ROWS)
    else:
        held: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
        if steps > 0:
            mbarrier.wait(q_full, 0)
        for step in range(steps):
            stage = step % STAGES
            mbarrier.wait(k_full.index(stage), (step // STAGES) & 1)
            none = gl.zeros([ROWS, BLOCK], gl.float32, s_layout)
            logit = warpgroup_mma(query, keys.index(stage).permute((1, 0)), none, use_acc=False)
            mbarrier.arrive(k_empty.index(stage), count=1)
            weight, share = weigh_page(
                logit, lses, slots, factor, v_factors, live, member, item, group, step,
                s_layout, SHARE, BLOCK, TOPK,
            )  # fmt: skip
            mbarrier.wait(v_full.index(stage), (step // STAGES) & 1)
            if WIDES == 0:
                mend_values(values.index(stage), slots, step, BLOCK, DIM)
                fence_async_shared()
            nothing = gl.zeros([ROWS, DIM], gl.float32, o_layout)
            taken = gl.convert_layout(weight.to(values.dtype), held)
            out = warpgroup_mma(taken, values.index(stage), nothing, use_acc=False)
            mbarrier.arrive(v_empty.index(stage), count=1)
            out = out * gl.convert_layout(share, gl.SliceLayout(1, o_layout))[:, None]
            store_slot(out, outs, slots, item, step, o_layout, SHARE, DIM, TOPK, ROWS)


@gluon.jit
def weigh_page(
    logit,
    lses,
    slots,
    factor,
    v_factors,
    live,
    member,
    item,
    group,
    step,
    layout: gl.constexpr,
    SHARE: gl.constexpr,
    BLOCK: gl.constexpr,
    TOPK: gl.constexpr,
):
    """Softmax of a page, whose LSEs are stored: the weights, and what outputs are to be times."""
    tokens = gl.load(slots + step * 3 + 1)
    slot = gl.load(slots + step * 3 + 2)
    newest = gl.zeros_like(member) + (tokens - 1)
    weight, share, lse = softmax_tile(logit, factor, newest, live, BLOCK, layout)
    gl.store(lses + (item.to(gl.int64) * SHARE + member) * TOPK + slot, lse, mask=live)
    if v_factors is not None:
        share = share * gl.load(v_factors + group)
    return weight, share


@gluon.jit
def mend_values(values, slots, step, BLOCK: gl.constexpr, DIM: gl.constexpr):
    """Let the values of a page be such that a weight of 0 leaves nothing of them."""
    tokens = gl.load(slots + step * 3 + 1)
    if tokens < BLOCK:
        widen_rows(values, values, tokens, BLOCK, DIM)


@gluon.jit(do_not_specialize=["run"])
def attend_pages(
    q_box,
    k_box,
    v_box,
    outs,
    lses,
    counts,
    places,
    q_factors,
    k_factors,
    v_factors,
    k_scales,
    v_scales,
    run,
    scale,
    GROUPS: gl.constexpr,
    SHARE: gl.constexpr,
    DIM: gl.constexpr,
    BLOCK: gl.constexpr,
    TOPK: gl.constexpr,
    ROWS: gl.constexpr,
    STAGES: gl.constexpr,
    TILES: gl.constexpr,
    WIDES: gl.constexpr,
    WIDE: gl.constexpr,
    Q_BYTES: gl.constexpr,
    PAGE_BYTES: gl.constexpr,
    TENSOR_MEMORY: gl.constexpr,
):
    """``run`` slots of item ``program_id(0)``, a query and a group: outputs and LSEs, one a slot.

    ``q_box`` takes boxes ``[ROWS, DIM]`` of the queries as a matrix of heads, ``k_box`` and
    ``v_box`` boxes of ``BLOCK`` rows of the pages as a matrix of tokens. ``outs``
    ``[queries, heads, TOPK, DIM]``, ``lses`` ``[queries, heads, TOPK]``; ``counts`` and ``places``
    are those of :func:`planning.plan_slots`. Factors are those of E4M3 elements, or None;
    scales, matrices of E4M3 with the rows of the pages, are those of NVFP4, or None.
    ``TILES`` is 2 at least: logits are a page ahead of outputs. ``WIDES`` is 0 where pages have the
    dtype of the queries, else the slots of each ring of pages in ``WIDE``.
    """
    item = gl.program_id(0)
    first = gl.program_id(1) * run
    steps = gl.minimum(gl.load(counts + item) - first, run)
    slots = places + (item.to(gl.int64) * TOPK + first) * 3
    query = gl.allocate_shared_memory(q_box.dtype, [ROWS, DIM], q_box.layout)
    WIDTH: gl.constexpr = k_box.block_shape[1]
    raw_keys = gl.allocate_shared_memory(k_box.dtype, [STAGES, BLOCK, WIDTH], k_box.layout)
    raw_values = gl.allocate_shared_memory(v_box.dtype, [STAGES, BLOCK, WIDTH], v_box.layout)
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    rk_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    rk_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    rv_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    rv_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    s_full = gl.allocate_shared_memory(gl.int64, [TILES, 1], mbarrier.MBarrierLayout())
    p_full = gl.allocate_shared_memory(gl.int64, [TILES, 1], mbarrier.MBarrierLayout())
    o_full = gl.allocate_shared_memory(gl.int64, [TILES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(rk_full.index(stage), count=1)
        mbarrier.init(rk_empty.index(stage), count=1)
        mbarrier.init(rv_full.index(stage), count=1)
        mbarrier.init(rv_empty.index(stage), count=1)
    for tile in gl.static_range(TILES):
        mbarrier.init(s_full.index(tile), count=1)
        mbarrier.init(p_full.index(tile), count=1)
        mbarrier.init(o_full.index(tile), count=1)
    keys, k_full, k_empty = raw_keys, rk_full, rk_empty
    values, v_full, v_empty = raw_values, rv_full, rv_empty
    RING: gl.constexpr = WIDES if WIDES > 0 else STAGES
    if WIDES > 0:
        widened: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK, DIM], WIDE)
        keys = gl.allocate_shared_memory(WIDE, [WIDES, BLOCK, DIM], widened)
        values = gl.allocate_shared_memory(WIDE, [WIDES, BLOCK, DIM], widened)
        k_full = gl.allocate_shared_memory(gl.int64, [WIDES, 1], mbarrier.MBarrierLayout())
        k_empty = gl.allocate_shared_memory(gl.int64, [WIDES, 1], mbarrier.MBarrierLayout())
        v_full = gl.allocate_shared_memory(gl.int64, [WIDES, 1], mbarrier.MBarrierLayout())
        v_empty = gl.allocate_shared_memory(gl.int64, [WIDES, 1], mbarrier.MBarrierLayout())
        for stage in gl.static_range(WIDES):
            mbarrier.init(k_full.index(stage), count=1)
            mbarrier.init(k_empty.index(stage), count=1)
            mbarrier.init(v_full.index(stage), count=1)
            mbarrier.init(v_empty.index(stage), count=1)
    fence_async_shared()
    if TENSOR_MEMORY:
        p_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, BLOCK], values.dtype)
        weights = gl.allocate_shared_memory(values.dtype, [TILES, ROWS, BLOCK], p_layout)
        s_layout: gl.constexpr = TensorMemoryLayout([ROWS, BLOCK], col_stride=1)
        o_layout: gl.constexpr = TensorMemoryLayout([ROWS, DIM], col_stride=1)
        logits = allocate_tensor_memory(gl.float32, [TILES, ROWS, BLOCK], s_layout)
        outputs = allocate_tensor_memory(gl.float32, [TILES, ROWS, DIM], o_layout)
        if WIDES > 0:
            gl.warp_specialize([
                (attend_slots, (
                    outs, lses, slots, q_factors, k_factors, v_factors,
                    query, keys, values, weights, logits, outputs,
                    q_full, k_full, k_empty, v_full, v_empty, s_full, p_full, o_full,
                    item, scale, steps, GROUPS, SHARE, DIM, BLOCK, TOPK, ROWS,
                    RING, TILES, WIDES, TENSOR_MEMORY,
                )),
                (fetch, (
                    q_box, k_box, v_box, slots, query, raw_keys, raw_values,
                    q_full, rk_full, rk_empty, rv_full, rv_empty,
                    item * SHARE, steps, STAGES, Q_BYTES, PAGE_BYTES,
                )),
                (multiply, (
                    query, keys, values, weights, logits, outputs,
                    q_full, k_full, k_empty, v_full, v_empty, s_full, p_full, o_full,
                    steps, RING, TILES,
                )),
                (widen_pages, (
                    k_scales, v_scales, slots,
                    raw_keys, raw_values, keys, values, rk_full, rk_empty, rv_full, rv_empty,
                    k_full, k_empty, v_full, v_empty, steps, BLOCK, DIM, STAGES, WIDES,
                )),
            ], [1, 1, 4], [24, 24, 96])  # fmt: skip
        else:
            gl.warp_specialize([
                (attend_slots, (
                    outs, lses, slots, q_factors, k_factors, v_factors,
                    query, keys, values, weights, logits, outputs,
                    q_full, k_full, k_empty, v_full, v_empty, s_full, p_full, o_full,
                    item, scale, steps, GROUPS, SHARE, DIM, BLOCK, TOPK, ROWS,
                    RING, TILES, WIDES, TENSOR_MEMORY,
                )),
                (fetch, (
                    q_box, k_box, v_box, slots, query, raw_keys, raw_values,
                    q_full, rk_full, rk_empty, rv_full, rv_empty,
                    item * SHARE, steps, STAGES, Q_BYTES, PAGE_BYTES,
                )),
                (multiply, (
                    query, keys, values, weights, logits, outputs,
                    q_full, k_full, k_empty, v_full, v_empty, s_full, p_full, o_full,
                    steps, RING, TILES,
                )),
            ], [1, 1], [24, 24])  # fmt: skip
    else:
        if WIDES > 0:
            gl.warp_specialize([
                (attend_slots, (
                    outs, lses, slots, q_factors, k_factors, v_factors,
                    query, keys, values, query, query, query,
                    q_full, k_full, k_empty, v_full, v_empty, s_full, p_full, o_full,
                    item, scale, steps, GROUPS, SHARE, DIM, BLOCK, TOPK, ROWS,
                    RING, TILES, WIDES, TENSOR_MEMORY,
                )),
                (fetch, (
                    q_box, k_box, v_box, slots, query, raw_keys, raw_values,
                    q_full, rk_full, rk_empty, rv_full, rv_empty,
                    item * SHARE, steps, STAGES, Q_BYTES, PAGE_BYTES,
                )),
                (widen_pages, (
                    k_scales, v_scales, slots,
                    raw_keys, raw_values, keys, values, rk_full, rk_empty, rv_full, rv_empty,
                    k_full, k_empty, v_full, v_empty, steps, BLOCK, DIM, STAGES, WIDES,
                )),
            ], [1, 4], [24, 96])  # fmt: skip
        else:
            gl.warp_specialize([
                (attend_slots, (
                    outs, lses, slots, q_factors, k_factors, v_factors,
                    query, keys, values, query, query, query,
                    q_full, k_full, k_empty, v_full, v_empty, s_full, p_full, o_full,
                    item, scale, steps, GROUPS, SHARE, DIM, BLOCK, TOPK, ROWS,
                    RING, TILES, WIDES, TENSOR_MEMORY,
                )),
                (fetch, (
                    q_box, k_box, v_box, slots, query, raw_keys, raw_values,
                    q_full, rk_full, rk_empty, rv_full, rv_empty,
                    item * SHARE, steps, STAGES, Q_BYTES, PAGE_BYTES,
                )),
            ], [1], [24])  # fmt: skip
