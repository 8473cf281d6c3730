"""Block scores: index products with the maximum over each block, in a pipeline of warps.

A *loader* copies the index keys of one block after the other into a ring of slots. Products of a
tile of index queries with a slot go to one of several tiles of tensor memory (by a *multiplier*) or
to registers; *reducers* take the maximum over a block's visible tokens. Signals:

    k_full[slot]    loader -> who multiplies     the keys have come
    k_empty[slot]   who multiplies -> loader     they have been read
    s_full[tile]    multiplier -> reducers       a product is there       (tensor memory only)
    s_empty[tile]   reducers -> multiplier       it has been read         (tensor memory only)

Keys of eight or four bits beside queries of sixteen go through a *widener*, from one ring into
another:

    raw_full[slot]  loader -> widener            the keys have come
    raw_empty[slot] widener -> loader            they have been read


Use number i of a slot waits for phase i & 1 of what fills it, and whoever fills it for the other
phase of what empties it, which a new barrier counts as over.
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

from msa_kernels.gluon_ops.kernel import load_scales, widen_tile
from msa_kernels.gluon_ops.language import bulk_load, product_registers


@gluon.jit
def row_of_block(
    page_table,
    start,
    block,
    head,
    stride_pb,
    known,
    HEADS: gl.constexpr,
    BLOCK: gl.constexpr,
    PAGED: gl.constexpr,
):
    """Where the keys of a block begin, in a matrix of tokens; anywhere unless it is ``known``."""
    if PAGED:
        into = page_table + start.to(gl.int64) * stride_pb + block
        row = (gl.load(into, mask=known, other=0) * HEADS + head) * BLOCK
    else:
        row = start + block * BLOCK
    return row


@gluon.jit
def load_keys(
    q_box,
    k_box,
    page_table,
    query,
    keys,
    q_full,
    k_full,
    k_empty,
    q_row,
    q_column,
    start,
    k_column,
    begin,
    head,
    stride_pb,
    steps,
    HEADS: gl.constexpr,
    BLOCK: gl.constexpr,
    STAGES: gl.constexpr,
    PAGED: gl.constexpr,
    Q_BYTES: gl.constexpr,
    K_BYTES: gl.constexpr,
):
    """Copy the queries once and the keys of ``steps`` blocks, each into the next slot."""
    if steps > 0:
        mbarrier.expect(q_full, Q_BYTES)
        bulk_load(q_box, [q_row, q_column], q_full, query)
    for step in range(steps):
        slot = step % STAGES
        mbarrier.wait(k_empty.index(slot), ((step // STAGES) & 1) ^ 1)
        mbarrier.expect(k_full.index(slot), K_BYTES)
        row = row_of_block(
            page_table, start, begin + step, head, stride_pb, True, HEADS, BLOCK, PAGED
        )
        bulk_load(k_box, [row, k_column], k_full.index(slot), keys.index(slot))


@gluon.jit
def block_scales(
    scales,
    page_table,
    start,
    begin,
    newest,
    head,
    stride_pb,
    step,
    steps,
    HEADS: gl.constexpr,
    BLOCK: gl.constexpr,
    DIM: gl.constexpr,
    PAGED: gl.constexpr,
):
    """Scales of the keys of a block up to the ``newest``; zeros behind the last block."""
    block = begin + step
    row = row_of_block(page_table, start, block, head, stride_pb, step < steps, HEADS, BLOCK, PAGED)
    rows = gl.where(step < steps, newest + 1 - block * BLOCK, 0)
    EACH: gl.constexpr = DIM // 16
    STRIDE: gl.constexpr = EACH if PAGED else HEADS * EACH
    column = 0
    if not PAGED:
        column = head * EACH
    return load_scales(scales, row, column, rows, BLOCK, DIM, STRIDE)


@gluon.jit
def widen_keys(
    k_scales,
    page_table,
    raw,
    keys,
    raw_full,
    raw_empty,
    k_full,
    k_empty,
    start,
    begin,
    newest,
    head,
    stride_pb,
    steps,
    HEADS: gl.constexpr,
    BLOCK: gl.constexpr,
    DIM: gl.constexpr,
    STAGES: gl.constexpr,
    WIDES: gl.constexpr,
    PAGED: gl.constexpr,
):
    """The keys of each block in the dtype of the queries, which has all values of E4M3 and NVFP4.

    Scales are asked for one block ahead.
    """
    scale = block_scales(
        k_scales, page_table, start, begin, newest, head, stride_pb, 0, steps,
        HEADS, BLOCK, DIM, PAGED,
    )  # fmt: skip
    for step in range(steps):
        mine = scale
        scale = block_scales(
            k_scales, page_table, start, begin, newest, head, stride_pb, step + 1, steps,
            HEADS, BLOCK, DIM, PAGED,
        )  # fmt: skip
        slot = step % STAGES
        into = step % WIDES
        mbarrier.wait(raw_full.index(slot), (step // STAGES) & 1)
        mbarrier.wait(k_empty.index(into), ((step // WIDES) & 1) ^ 1)
        widen_tile(raw.index(slot), keys.index(into), k_scales, mine, BLOCK, BLOCK, DIM)
        mbarrier.arrive(raw_empty.index(slot), count=1)
        fence_async_shared()
        mbarrier.arrive(k_full.index(into), count=1)


@gluon.jit
def multiply(
    query,
    keys,
    products,
    q_full,
    k_full,
    k_empty,
    s_full,
    s_empty,
    steps,
    STAGES: gl.constexpr,
    TILES: gl.constexpr,
):
    """One product a block into tensor memory; its end frees the keys and hands on the product."""
    if steps > 0:
        mbarrier.wait(q_full, 0)
    for step in range(steps):
        slot = step % STAGES
        tile = step % TILES
        mbarrier.wait(k_full.index(slot), (step // STAGES) & 1)
        mbarrier.wait(s_empty.index(tile), ((step // TILES) & 1) ^ 1)
        tcgen05_mma(
            query,
            keys.index(slot).permute((1, 0)),
            products.index(tile),
            use_acc=False,
            mbarriers=[k_empty.index(slot), s_full.index(tile)],
        )


@gluon.jit
def reduce(
    scores,
    q_factors,
    k_factors,
    query,
    keys,
    products,
    q_full,
    k_full,
    k_empty,
    s_full,
    s_empty,
    steps,
    begin,
    first,
    stop,
    low,
    shift,
    head,
    stride_t,
    stride_g,
    scale,
    PARTS: gl.constexpr,
    ROWS: gl.constexpr,
    BLOCK: gl.constexpr,
    COLUMNS: gl.constexpr,
    STAGES: gl.constexpr,
    TILES: gl.constexpr,
    NEGATED: gl.constexpr,
    TENSOR_MEMORY: gl.constexpr,
):
    """The best visible token of each block; ``COLUMNS`` blocks are held before they are stored."""
    warps: gl.constexpr = gl.num_warps()
    wide: gl.constexpr = product_registers(TENSOR_MEMORY, ROWS, BLOCK, query.dtype, warps)
    narrow: gl.constexpr = gl.BlockedLayout([1, COLUMNS], [32, 1], [warps, 1], [0, 1])
    TOKENS: gl.constexpr = ROWS // PARTS
    # Rows behind the last query are as blind as that one.
    asked = gl.arange(0, ROWS, gl.SliceLayout(1, wide))
    position = gl.minimum(first + asked // PARTS, stop - 1) + shift
    token = gl.arange(0, BLOCK, gl.SliceLayout(0, wide))
    member = gl.arange(0, ROWS, gl.SliceLayout(1, narrow))
    column = gl.arange(0, COLUMNS, gl.SliceLayout(0, narrow))
    row = first + member // PARTS
    group = head * PARTS + member % PARTS
    live = (row < stop) & (member < TOKENS * PARTS)
    into = scores + (row - low).to(gl.int64) * stride_t + group * stride_g
    newest = (row + shift) // BLOCK
    factor = gl.full([ROWS], 1.0, gl.float32, gl.SliceLayout(1, narrow)) * scale
    if q_factors is not None:
        factor = factor * gl.load(q_factors + group, mask=live, other=1.0)
    if k_factors is not None:
        factor = factor * gl.load(k_factors + head)
    held = gl.full([ROWS, COLUMNS], float("-inf"), gl.float32, narrow)
    if (not TENSOR_MEMORY) and steps > 0:
        mbarrier.wait(q_full, 0)
    for step in range(steps):
        if TENSOR_MEMORY:
            tile = step % TILES
            mbarrier.wait(s_full.index(tile), (step // TILES) & 1)
            product = products.index(tile).load(wide)
            mbarrier.arrive(s_empty.index(tile), count=1)
        else:
            slot = step % STAGES
            mbarrier.wait(k_full.index(slot), (step // STAGES) & 1)
            zeros = gl.zeros([ROWS, BLOCK], gl.float32, wide)
            turned = keys.index(slot).permute((1, 0))
            product = warpgroup_mma(query, turned, zeros, use_acc=False)
            mbarrier.arrive(k_empty.index(slot), count=1)
        if NEGATED:
            product = -product
        block = begin + step
        # What the oldest query of the tile sees whole needs no mask.
        if (block + 1) * BLOCK - 1 > first + shift:
            visible = (block * BLOCK + token)[None, :] <= position[:, None]
            product = gl.where(visible, product, float("-inf"))
        best = gl.convert_layout(gl.max(product, 1), gl.SliceLayout(1, narrow))
        # Nothing visible stays so at a scale of zero.
        best = gl.where(best == float("-inf"), best, best * factor)
        turn = step % COLUMNS
        held = gl.where((column == turn)[None, :], best[:, None], held)
        if (turn == COLUMNS - 1) | (step == steps - 1):
            of = block - turn + column
            known = (column <= turn)[None, :] & (of[None, :] <= newest[:, None])
            gl.store(into[:, None] + of[None, :], held, mask=live[:, None] & known)


@gluon.jit(do_not_specialize=["last", "low", "stride_pb"])
def score_blocks(
    q_box,
    k_box,
    scores,
    plan,
    page_table,
    q_factors,
    k_factors,
    k_scales,
    stride_t,
    stride_g,
    stride_pb,
    scale,
    last,
    low,
    PARTS: gl.constexpr,
    HEADS: gl.constexpr,
    DIM: gl.constexpr,
    ROWS: gl.constexpr,
    BLOCK: gl.constexpr,
    RUN: gl.constexpr,
    COLUMNS: gl.constexpr,
    STAGES: gl.constexpr,
    TILES: gl.constexpr,
    WIDES: gl.constexpr,
    NEGATED: gl.constexpr,
    PAGED: gl.constexpr,
    Q_BYTES: gl.constexpr,
    K_BYTES: gl.constexpr,
    TENSOR_MEMORY: gl.constexpr,
):
    """Scores of a tile of queries over ``RUN`` blocks; columns that a row does not see are left.

    ``PARTS`` groups of each query share the keys of head ``program_id(2)`` of ``HEADS``. ``q_box``
    takes boxes ``[ROWS, DIM]`` of the index queries, ``k_box`` boxes ``[BLOCK, DIM]`` of the index
    keys. ``scores`` has adjacent columns and begins at row ``low``; ``plan`` is that of
    :func:`planning.plan_tiles` or, ``PAGED``, of :func:`planning.plan_requests`, where blocks lie
    where ``page_table`` says. ``scale`` is 0 or more, ``NEGATED`` that it was below; ``q_factors``
    ``[groups]`` and ``k_factors`` ``[heads]`` are those of E4M3 elements, or None. ``k_scales``, a
    matrix of E4M3 with the rows of the keys, are those of NVFP4 keys, else None. ``WIDES`` is 0
    where keys have the dtype of the queries, else the slots for widened ones.
    """
    TOKENS: gl.constexpr = ROWS // PARTS
    # The longest rows first, so that none is left alone at the end.
    tile = last - gl.program_id(0)
    head = gl.program_id(2)
    first = gl.load(plan + tile * 4)
    stop = gl.load(plan + tile * 4 + 1)
    shift = gl.load(plan + tile * 4 + 2)
    start = gl.load(plan + tile * 4 + 3)
    begin = gl.program_id(1) * RUN
    newest = gl.minimum(first + TOKENS, stop) - 1 + shift
    steps = gl.minimum(begin + RUN, newest // BLOCK + 1) - begin
    if first >= stop:
        steps = 0
    query = gl.allocate_shared_memory(q_box.dtype, [ROWS, DIM], q_box.layout)
    WIDTH: gl.constexpr = k_box.block_shape[1]
    raw = gl.allocate_shared_memory(k_box.dtype, [STAGES, BLOCK, WIDTH], k_box.layout)
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    raw_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    raw_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    s_full = gl.allocate_shared_memory(gl.int64, [TILES, 1], mbarrier.MBarrierLayout())
    s_empty = gl.allocate_shared_memory(gl.int64, [TILES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=1)
    for slot in gl.static_range(STAGES):
        mbarrier.init(raw_full.index(slot), count=1)
        mbarrier.init(raw_empty.index(slot), count=1)
    keys = raw
    k_full = raw_full
    k_empty = raw_empty
    SLOTS: gl.constexpr = WIDES if WIDES > 0 else STAGES
    if WIDES > 0:
        widened: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK, DIM], q_box.dtype)
        keys = gl.allocate_shared_memory(q_box.dtype, [WIDES, BLOCK, DIM], widened)
        k_full = gl.allocate_shared_memory(gl.int64, [WIDES, 1], mbarrier.MBarrierLayout())
        k_empty = gl.allocate_shared_memory(gl.int64, [WIDES, 1], mbarrier.MBarrierLayout())
        for slot in gl.static_range(WIDES):
            mbarrier.init(k_full.index(slot), count=1)
            mbarrier.init(k_empty.index(slot), count=1)
    for tile_of in gl.static_range(TILES):
        mbarrier.init(s_full.index(tile_of), count=1)
        mbarrier.init(s_empty.index(tile_of), count=1)
    fence_async_shared()
    q_row = first * PARTS
    q_column = 0
    if PARTS == 1:
        q_column = head * DIM
    k_column = 0
    if not PAGED:
        k_column = head * WIDTH
    if TENSOR_MEMORY:
        layout: gl.constexpr = TensorMemoryLayout([ROWS, BLOCK], col_stride=1)
        products = allocate_tensor_memory(gl.float32, [TILES, ROWS, BLOCK], layout)
        if WIDES > 0:
            gl.warp_specialize([
                (reduce, (
                    scores, q_factors, k_factors, query, keys, products,
                    q_full, k_full, k_empty, s_full, s_empty,
                    steps, begin, first, stop, low, shift, head, stride_t, stride_g, scale,
                    PARTS, ROWS, BLOCK, COLUMNS, SLOTS, TILES, NEGATED, TENSOR_MEMORY,
                )),
                (load_keys, (
                    q_box, k_box, page_table, query, raw, q_full, raw_full, raw_empty,
                    q_row, q_column, start, k_column, begin, head, stride_pb,
                    steps, HEADS, BLOCK, STAGES, PAGED, Q_BYTES, K_BYTES,
                )),
                (multiply, (
                    query, keys, products, q_full, k_full, k_empty, s_full, s_empty,
                    steps, SLOTS, TILES,
                )),
                (widen_keys, (
                    k_scales, page_table, raw, keys, raw_full, raw_empty, k_full, k_empty,
                    start, begin, newest, head, stride_pb,
                    steps, HEADS, BLOCK, DIM, STAGES, WIDES, PAGED,
                )),
            ], [1, 1, 4], [24, 24, 96])  # fmt: skip
        else:
            gl.warp_specialize([
                (reduce, (
                    scores, q_factors, k_factors, query, keys, products,
                    q_full, k_full, k_empty, s_full, s_empty,
                    steps, begin, first, stop, low, shift, head, stride_t, stride_g, scale,
                    PARTS, ROWS, BLOCK, COLUMNS, SLOTS, TILES, NEGATED, TENSOR_MEMORY,
                )),
                (load_keys, (
                    q_box, k_box, page_table, query, raw, q_full, raw_full, raw_empty,
                    q_row, q_column, start, k_column, begin, head, stride_pb,
                    steps, HEADS, BLOCK, STAGES, PAGED, Q_BYTES, K_BYTES,
                )),
                (multiply, (
                    query, keys, products, q_full, k_full, k_empty, s_full, s_empty,
                    steps, SLOTS, TILES,
                )),
            ], [1, 1], [24, 24])  # fmt: skip
    else:
        if WIDES > 0:
            gl.warp_specialize([
                (reduce, (
                    scores, q_factors, k_factors, query, keys, keys,
                    q_full, k_full, k_empty, s_full, s_empty,
                    steps, begin, first, stop, low, shift, head, stride_t, stride_g, scale,
                    PARTS, ROWS, BLOCK, COLUMNS, SLOTS, TILES, NEGATED, TENSOR_MEMORY,
                )),
                (load_keys, (
                    q_box, k_box, page_table, query, raw, q_full, raw_full, raw_empty,
                    q_row, q_column, start, k_column, begin, head, stride_pb,
                    steps, HEADS, BLOCK, STAGES, PAGED, Q_BYTES, K_BYTES,
                )),
                (widen_keys, (
                    k_scales, page_table, raw, keys, raw_full, raw_empty, k_full, k_empty,
                    start, begin, newest, head, stride_pb,
                    steps, HEADS, BLOCK, DIM, STAGES, WIDES, PAGED,
                )),
            ], [1, 4], [24, 112])  # fmt: skip
        else:
            gl.warp_specialize([
                (reduce, (
                    scores, q_factors, k_factors, query, keys, keys,
                    q_full, k_full, k_empty, s_full, s_empty,
                    steps, begin, first, stop, low, shift, head, stride_t, stride_g, scale,
                    PARTS, ROWS, BLOCK, COLUMNS, SLOTS, TILES, NEGATED, TENSOR_MEMORY,
                )),
                (load_keys, (
                    q_box, k_box, page_table, query, raw, q_full, raw_full, raw_empty,
                    q_row, q_column, start, k_column, begin, head, stride_pb,
                    steps, HEADS, BLOCK, STAGES, PAGED, Q_BYTES, K_BYTES,
                )),
            ], [1], [24])  # fmt: skip
