"""Attention with the key blocks outermost: gathered queries against one block, in a pipeline.

A *unit* is a run of tiles of the queries that chose a block. Its keys and values are copied once;
a *gatherer* brings the queries of one tile after the other into a ring of slots. Since a tile meets
one block only, its softmax is complete at once, and each slot of the selection gets a partial
output with its LSE. Products go to tensor memory by a *multiplier*, or stay in registers. Signals:

    kv_full          gatherer -> all             keys and values have come
    kv_ready         softmax -> multiplier       keys are as wide as the queries *
    q_full[slot]     gatherer -> who multiplies  the queries of a tile have come
    q_empty[slot]    who multiplies -> gatherer  they have been read
    s_full[tile]     multiplier -> softmax       logits are there *
    p_full[tile]     softmax -> multiplier       weights are there, logits were read,
                                                 values beyond the last key are zeros *
    o_full[tile]     multiplier -> softmax       outputs are there, weights were read *

The multiplier is one tile ahead with the logits, so that it works while the softmax does.

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
from msa_kernels.gluon_ops.language import (
    bulk_gather,
    bulk_load,
    commit_group,
    product_registers,
    scattered_load,
    wait_group,
)


@gluon.jit
def place_of(order, entry, stop, GROUPS: gl.constexpr, TOPK: gl.constexpr):
    """Of entries of a list: the row that chose the block, in which slot, and whether it counts."""
    live = entry < stop
    chosen = gl.load(order + entry, mask=live, other=0)
    return chosen // (GROUPS * TOPK), chosen % TOPK, live


@gluon.jit
def gather(
    q,
    q_box,
    k_box,
    v_box,
    order,
    query,
    keys,
    values,
    kv_full,
    q_full,
    q_empty,
    first,
    stop,
    start,
    group,
    low,
    steps,
    GROUPS: gl.constexpr,
    SHARE: gl.constexpr,
    DIM: gl.constexpr,
    TOPK: gl.constexpr,
    ROWS: gl.constexpr,
    SLOTS: gl.constexpr,
    Q_BYTES: gl.constexpr,
    KV_BYTES: gl.constexpr,
    TENSOR_MEMORY: gl.constexpr,
):
    """Copy the block once, and the queries of ``steps`` tiles, each into the next slot."""
    warps: gl.constexpr = gl.num_warps()
    EACH: gl.constexpr = ROWS // SHARE
    HEADS: gl.constexpr = GROUPS * SHARE
    if steps > 0:
        mbarrier.expect(kv_full, KV_BYTES)
        column = group * keys.shape[1]
        bulk_load(k_box, [start, column], kv_full, keys)
        bulk_load(v_box, [start, column], kv_full, values)
    for step in range(steps):
        slot = step % SLOTS
        mbarrier.wait(q_empty.index(slot), ((step // SLOTS) & 1) ^ 1)
        if TENSOR_MEMORY:
            four: gl.constexpr = gl.BlockedLayout([1, 4], [32, 1], [1, warps], [1, 0])
            member = gl.arange(0, ROWS, gl.SliceLayout(0, four))
            row, _, _ = place_of(order, first + step * EACH + member // SHARE, stop, GROUPS, TOPK)
            where = ((row + low) * HEADS + group * SHARE + member % SHARE).to(gl.int32)
            mbarrier.expect(q_full.index(slot), Q_BYTES)
            bulk_gather(q_box, where, 0, q_full.index(slot), query.index(slot))
        else:
            apart: gl.constexpr = gl.BlockedLayout(
                [1, 8], [32 // (DIM // 8), DIM // 8], [warps, 1], [1, 0]
            )
            member = gl.arange(0, ROWS, gl.SliceLayout(1, apart))
            row, _, live = place_of(
                order, first + step * EACH + member // SHARE, stop, GROUPS, TOPK
            )
            where = (row + low) * HEADS + group * SHARE + member % SHARE
            channel = gl.arange(0, DIM, gl.SliceLayout(0, apart))
            source = q + where.to(gl.int64)[:, None] * DIM + channel[None, :]
            scattered_load(query.index(slot), source, mask=live[:, None])
            commit_group()
            wait_group(0)
            fence_async_shared()
            mbarrier.arrive(q_full.index(slot), count=1)


@gluon.jit
def multiply(
    query,
    keys,
    values,
    weights,
    logits,
    outputs,
    kv_full,
    kv_ready,
    q_full,
    q_empty,
    s_full,
    p_full,
    o_full,
    steps,
    SLOTS: gl.constexpr,
    TILES: gl.constexpr,
    WIDE_KEYS: gl.constexpr,
):
    """Two products a tile into tensor memory, the logits one tile ahead of the outputs."""
    if steps > 0:
        mbarrier.wait(kv_full, 0)
        if WIDE_KEYS:
            mbarrier.wait(kv_ready, 0)
    for step in range(steps + 1):
        if step < steps:
            slot = step % SLOTS
            tile = step % TILES
            mbarrier.wait(q_full.index(slot), (step // SLOTS) & 1)
            # The logits of this tile's last use were read before its weights were there, which the
            # product behind them has waited for. Likewise its outputs, before the next weights.
            tcgen05_mma(
                query.index(slot),
                keys.permute((1, 0)),
                logits.index(tile),
                use_acc=False,
                mbarriers=[q_empty.index(slot), s_full.index(tile)],
            )
        if step > 0:
            use = step - 1
            tile = use % TILES
            mbarrier.wait(p_full.index(tile), (use // TILES) & 1)
            tcgen05_mma(
                weights.index(tile),
                values,
                outputs.index(tile),
                use_acc=False,
                mbarriers=[o_full.index(tile)],
            )


@gluon.jit
def weigh(
    logit,
    lses,
    order,
    factor,
    v_factors,
    entry,
    stop,
    group,
    offset,
    layout: gl.constexpr,
    GROUPS: gl.constexpr,
    SHARE: gl.constexpr,
    BLOCK: gl.constexpr,
    TOPK: gl.constexpr,
    ROWS: gl.constexpr,
):
    """Softmax of a tile, whose LSEs are stored: the weights, and what outputs are to be times."""
    member = gl.arange(0, ROWS, gl.SliceLayout(1, layout))
    row, slot, live = place_of(order, entry + member // SHARE, stop, GROUPS, TOPK)
    live = live & (member < ROWS // SHARE * SHARE)
    newest = (row + offset).to(gl.int32)  # token of the block, or beyond
    weight, share, lse = softmax_tile(logit, factor, newest, live, BLOCK, layout)
    place = (row * (GROUPS * SHARE) + group * SHARE + member % SHARE) * TOPK + slot
    gl.store(lses + place, lse, mask=live)
    if v_factors is not None:
        share = share * gl.load(v_factors + group)
    return weight, share


@gluon.jit
def store_outputs(
    out,
    outs,
    order,
    entry,
    stop,
    group,
    o_layout: gl.constexpr,
    GROUPS: gl.constexpr,
    SHARE: gl.constexpr,
    DIM: gl.constexpr,
    TOPK: gl.constexpr,
    ROWS: gl.constexpr,
):
    """Each row of a tile to the slot that asked for it."""
    member = gl.arange(0, ROWS, gl.SliceLayout(1, o_layout))
    channel = gl.arange(0, DIM, gl.SliceLayout(0, o_layout))
    row, slot, live = place_of(order, entry + member // SHARE, stop, GROUPS, TOPK)
    live = live & (member < ROWS // SHARE * SHARE)
    place = (row * (GROUPS * SHARE) + group * SHARE + member % SHARE) * TOPK + slot
    into = outs + (place * DIM)[:, None] + channel[None, :]
    gl.store(into, out.to(outs.dtype.element_ty), mask=live[:, None])


@gluon.jit
def attend_tiles(
    outs,
    lses,
    order,
    q_factors,
    k_factors,
    v_factors,
    k_scales,
    v_scales,
    query,
    keys,
    values,
    wide_keys,
    wide,
    weights,
    logits,
    outputs,
    kv_full,
    kv_ready,
    q_full,
    q_empty,
    s_full,
    p_full,
    o_full,
    first,
    stop,
    start,
    group,
    offset,
    tokens,
    scale,
    steps,
    GROUPS: gl.constexpr,
    SHARE: gl.constexpr,
    DIM: gl.constexpr,
    BLOCK: gl.constexpr,
    TOPK: gl.constexpr,
    ROWS: gl.constexpr,
    SLOTS: gl.constexpr,
    TILES: gl.constexpr,
    WIDE_KEYS: gl.constexpr,
    WIDE_VALUES: gl.constexpr,
    TENSOR_MEMORY: gl.constexpr,
):
    """Softmax of each tile, and its partial outputs, one tile behind where products go on."""
    warps: gl.constexpr = gl.num_warps()
    s_layout: gl.constexpr = product_registers(TENSOR_MEMORY, ROWS, BLOCK, query.dtype, warps)
    o_layout: gl.constexpr = product_registers(TENSOR_MEMORY, ROWS, DIM, wide.dtype, warps)
    EACH: gl.constexpr = ROWS // SHARE
    along: gl.constexpr = gl.SliceLayout(1, s_layout)
    head = group * SHARE + gl.arange(0, ROWS, along) % SHARE
    factor = logit_factor(q_factors, k_factors, scale, head, group, ROWS, along)
    if steps > 0:
        OF: gl.constexpr = DIM // 16
        k_scale = load_scales(k_scales, start, group * OF, tokens, BLOCK, DIM, GROUPS * OF)
        v_scale = load_scales(v_scales, start, group * OF, tokens, BLOCK, DIM, GROUPS * OF)
        mbarrier.wait(kv_full, 0)
        if WIDE_KEYS:
            widen_tile(keys, wide_keys, k_scales, k_scale, BLOCK, BLOCK, DIM)
        if WIDE_VALUES:
            widen_tile(values, wide, v_scales, v_scale, tokens, BLOCK, DIM)
        else:
            if tokens < BLOCK:
                widen_rows(values, wide, tokens, BLOCK, DIM)
        fence_async_shared()
        if WIDE_KEYS & TENSOR_MEMORY:
            mbarrier.arrive(kv_ready, count=1)
    if TENSOR_MEMORY:
        share = gl.full([ROWS], 0.0, gl.float32, along)
        for step in range(steps + 1):
            last = share
            if step < steps:
                tile = step % TILES
                mbarrier.wait(s_full.index(tile), (step // TILES) & 1)
                logit = logits.index(tile).load(s_layout)
                weight, share = weigh(
                    logit, lses, order, factor, v_factors, first + step * EACH, stop, group, offset,
                    s_layout, GROUPS, SHARE, BLOCK, TOPK, ROWS,
                )  # fmt: skip
                # What read the weights of this tile's last use has ended: its outputs were waited
                # for, since there are two tiles at least.
                weights.index(tile).store(weight.to(wide.dtype))
                fence_async_shared()
                mbarrier.arrive(p_full.index(tile), count=1)
            if step > 0:
                use = step - 1
                tile = use % TILES
                mbarrier.wait(o_full.index(tile), (use // TILES) & 1)
                out = outputs.index(tile).load(o_layout)
                out = out * gl.convert_layout(last, gl.SliceLayout(1, o_layout))[:, None]
                store_outputs(
                    out, outs, order, first + use * EACH, stop, group,
                    o_layout, GROUPS, SHARE, DIM, TOPK, ROWS,
                )  # fmt: skip
    else:
        held: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
        for step in range(steps):
            slot = step % SLOTS
            mbarrier.wait(q_full.index(slot), (step // SLOTS) & 1)
            none = gl.zeros([ROWS, BLOCK], gl.float32, s_layout)
            turned = wide_keys.permute((1, 0))
            logit = warpgroup_mma(query.index(slot), turned, none, use_acc=False)
            mbarrier.arrive(q_empty.index(slot), count=1)
            weight, share = weigh(
                logit, lses, order, factor, v_factors, first + step * EACH, stop, group, offset,
                s_layout, GROUPS, SHARE, BLOCK, TOPK, ROWS,
            )  # fmt: skip
            nothing = gl.zeros([ROWS, DIM], gl.float32, o_layout)
            taken = gl.convert_layout(weight.to(wide.dtype), held)
            out = warpgroup_mma(taken, wide, nothing, use_acc=False)
            out = out * gl.convert_layout(share, gl.SliceLayout(1, o_layout))[:, None]
            store_outputs(
                out, outs, order, first + step * EACH, stop, group,
                o_layout, GROUPS, SHARE, DIM, TOPK, ROWS,
            )  # fmt: skip


@gluon.jit
def attend_units(
    q,
    q_box,
    k_box,
    v_box,
    outs,
    lses,
    order,
    plan,
    q_factors,
    k_factors,
    v_factors,
    k_scales,
    v_scales,
    low,
    scale,
    GROUPS: gl.constexpr,
    SHARE: gl.constexpr,
    DIM: gl.constexpr,
    BLOCK: gl.constexpr,
    TOPK: gl.constexpr,
    ROWS: gl.constexpr,
    SLOTS: gl.constexpr,
    TILES: gl.constexpr,
    WIDE_KEYS: gl.constexpr,
    WIDE_VALUES: gl.constexpr,
    WIDE: gl.constexpr,
    Q_BYTES: gl.constexpr,
    KV_BYTES: gl.constexpr,
    TENSOR_MEMORY: gl.constexpr,
):
    """One unit of the plan: outputs and LSEs of the slots that it lists, and of no others.

    ``q`` ``[Tq, heads, DIM]`` is contiguous, ``q_box`` takes single rows of it as a matrix of heads
    (or is None, in registers), ``k_box`` and ``v_box`` boxes of ``BLOCK`` tokens. ``outs``
    ``[rows, heads, TOPK, DIM]`` and ``lses`` ``[rows, heads, TOPK]`` are those of rows ``low`` on.
    ``order`` and ``plan`` are those of :func:`planning.plan_units`; factors are those of E4M3
    elements, ``[heads]``, ``[GROUPS]`` and ``[GROUPS]``, or None; scales are those of
    NVFP4, ``[Tk, GROUPS, DIM / 16]`` in E4M3, or None. ``TILES`` is 2 at least. Keys and values
    that are ``WIDE_KEYS`` and ``WIDE_VALUES`` are multiplied as ``WIDE``.
    """
    unit = plan + gl.program_id(0) * 6
    first = gl.load(unit)
    stop = gl.load(unit + 1)
    start = gl.load(unit + 2)
    group = gl.load(unit + 3)
    offset = gl.load(unit + 4)
    tokens = gl.load(unit + 5)
    EACH: gl.constexpr = ROWS // SHARE
    steps = (stop - first + EACH - 1) // EACH
    q_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, DIM], q.dtype.element_ty)
    query = gl.allocate_shared_memory(q.dtype.element_ty, [SLOTS, ROWS, DIM], q_layout)
    WIDTH: gl.constexpr = k_box.block_shape[1]
    keys = gl.allocate_shared_memory(k_box.dtype, [BLOCK, WIDTH], k_box.layout)
    values = gl.allocate_shared_memory(k_box.dtype, [BLOCK, WIDTH], k_box.layout)
    wide = values
    if WIDE_VALUES:
        wide = gl.allocate_shared_memory(
            WIDE, [BLOCK, DIM], gl.NVMMASharedLayout.get_default_for([BLOCK, DIM], WIDE)
        )
    wide_keys = keys
    if WIDE_KEYS:
        wide_keys = gl.allocate_shared_memory(
            WIDE, [BLOCK, DIM], gl.NVMMASharedLayout.get_default_for([BLOCK, DIM], WIDE)
        )
    kv_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    kv_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    q_full = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    s_full = gl.allocate_shared_memory(gl.int64, [TILES, 1], mbarrier.MBarrierLayout())
    p_full = gl.allocate_shared_memory(gl.int64, [TILES, 1], mbarrier.MBarrierLayout())
    o_full = gl.allocate_shared_memory(gl.int64, [TILES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(kv_full, count=1)
    mbarrier.init(kv_ready, count=1)
    for slot in gl.static_range(SLOTS):
        mbarrier.init(q_full.index(slot), count=1)
        mbarrier.init(q_empty.index(slot), count=1)
    for tile in gl.static_range(TILES):
        mbarrier.init(s_full.index(tile), count=1)
        mbarrier.init(p_full.index(tile), count=1)
        mbarrier.init(o_full.index(tile), count=1)
    fence_async_shared()
    if TENSOR_MEMORY:
        p_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, BLOCK], wide.dtype)
        weights = gl.allocate_shared_memory(wide.dtype, [TILES, ROWS, BLOCK], p_layout)
        s_layout: gl.constexpr = TensorMemoryLayout([ROWS, BLOCK], col_stride=1)
        o_layout: gl.constexpr = TensorMemoryLayout([ROWS, DIM], col_stride=1)
        logits = allocate_tensor_memory(gl.float32, [TILES, ROWS, BLOCK], s_layout)
        outputs = allocate_tensor_memory(gl.float32, [TILES, ROWS, DIM], o_layout)
        gl.warp_specialize([
            (attend_tiles, (
                outs, lses, order, q_factors, k_factors, v_factors, k_scales, v_scales,
                query, keys, values, wide_keys, wide, weights, logits, outputs,
                kv_full, kv_ready, q_full, q_empty, s_full, p_full, o_full,
                first, stop, start, group, offset, tokens, scale, steps,
                GROUPS, SHARE, DIM, BLOCK, TOPK, ROWS, SLOTS, TILES,
                WIDE_KEYS, WIDE_VALUES, TENSOR_MEMORY,
            )),
            (gather, (
                q, q_box, k_box, v_box, order, query, keys, values, kv_full, q_full, q_empty,
                first, stop, start, group, low, steps,
                GROUPS, SHARE, DIM, TOPK, ROWS, SLOTS, Q_BYTES, KV_BYTES, TENSOR_MEMORY,
            )),
            (multiply, (
                query, wide_keys, wide, weights, logits, outputs,
                kv_full, kv_ready, q_full, q_empty, s_full, p_full, o_full,
                steps, SLOTS, TILES, WIDE_KEYS,
            )),
        ], [1, 1], [200, 24])  # fmt: skip
    else:
        gl.warp_specialize([
            (attend_tiles, (
                outs, lses, order, q_factors, k_factors, v_factors, k_scales, v_scales,
                query, keys, values, wide_keys, wide, query, query, query,
                kv_full, kv_ready, q_full, q_empty, s_full, p_full, o_full,
                first, stop, start, group, offset, tokens, scale, steps,
                GROUPS, SHARE, DIM, BLOCK, TOPK, ROWS, SLOTS, TILES,
                WIDE_KEYS, WIDE_VALUES, TENSOR_MEMORY,
            )),
            (gather, (
                q, q_box, k_box, v_box, order, query, keys, values, kv_full, q_full, q_empty,
                first, stop, start, group, low, steps,
                GROUPS, SHARE, DIM, TOPK, ROWS, SLOTS, Q_BYTES, KV_BYTES, TENSOR_MEMORY,
            )),
        ], [4], [96])  # fmt: skip
