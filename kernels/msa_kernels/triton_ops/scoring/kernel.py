"""Index scores with the maximum over each block fused: no score of a token reaches memory."""

import triton
import triton.language as tl

from msa_kernels.triton_ops.kernel import position_shift, sequence_of_tile


@triton.jit
def best_of_blocks(
    query,
    keys,
    pages,
    stride_t,
    stride_d,
    stride_p,
    stride_w,
    block,
    position,
    scale,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    PAGED: tl.constexpr,
):
    """Best visible score of ``COLUMNS`` blocks from ``block`` on, ``[rows, COLUMNS]``.

    ``WIDTH`` is the power of two that holds a block; ``MASKED`` where a row may not see all;
    ``scale`` is a number or ``[rows, 1]``.
    """
    ROWS: tl.constexpr = query.shape[0]
    column = tl.arange(0, COLUMNS * WIDTH)
    inside = column % WIDTH
    token = (block + column // WIDTH) * BLOCK + inside
    dim = tl.arange(0, DIMS).to(tl.int64)
    readable = (inside < BLOCK)[:, None] & (dim < DIM)[None, :]
    if MASKED:
        # Keys behind the newest query of the tile may belong to another sequence, or to nobody.
        readable = readable & (token <= tl.max(position, 0))[:, None]
    if PAGED:
        used = token <= tl.max(position, 0)
        page = tl.load(pages + (block + column // WIDTH) * stride_w, mask=used, other=0)
        start = page.to(tl.int64) * stride_p + inside.to(tl.int64) * stride_t
    else:
        start = token.to(tl.int64) * stride_t
    place = start[:, None] + dim[None, :] * stride_d
    tile = tl.load(keys + place, mask=readable, other=0.0)  # [COLUMNS * WIDTH, DIMS]
    tile = tile.to(query.dtype)  # E4M3 keys beside wide queries
    product = tl.dot(query, tl.trans(tile), input_precision="ieee")
    if MASKED:
        hidden = (token[None, :] > position[:, None]) | (inside >= BLOCK)[None, :]
        product = tl.where(hidden, float("-inf"), product)
    elif WIDTH != BLOCK:
        product = tl.where((inside >= BLOCK)[None, :], float("-inf"), product)
    best = tl.max(tl.reshape(product, (ROWS, COLUMNS, WIDTH)), axis=2)
    # Of what is hidden, and would be NaN at a scale of zero.
    nothing = best == float("-inf")
    return tl.where(nothing, best, tl.where(nothing, 0.0, best) * scale)


@triton.jit(do_not_specialize=["low", "high", "sequences", "steps", "queries"])
def score_tile(
    q,
    k,
    scores,
    row_totals,
    key_totals,
    page_table,
    q_descale,
    k_descale,
    stride_qt,
    stride_qg,
    stride_qd,
    stride_kt,
    stride_kg,
    stride_kd,
    stride_st,
    stride_sg,
    stride_pk,
    stride_pb,
    stride_pw,
    stride_kf,
    scale,
    low,
    high,
    sequences,
    steps,
    queries,
    GROUPS: tl.constexpr,
    PARTS: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    RUN: tl.constexpr,
    NEGATED: tl.constexpr,
    ROWS: tl.constexpr,
    PAGED: tl.constexpr,
):
    """Scores of a tile of rows ``low`` to ``high`` over ``RUN`` times ``COLUMNS`` blocks.

    A tile holds ``PARTS`` groups of each of its queries: all that share the key head. Columns that
    a row does not see are left as they were. ``scale`` is 0 or more: the best token is found
    before it is applied, and below zero that is the one whose product is lowest, hence
    ``NEGATED``. ``q_descale`` ``[GROUPS]`` and ``k_descale`` are the factors of E4M3 elements, all
    above 0 too, or None. Paged, a request has ``queries`` rows and ``key_totals`` are the lengths.
    """
    TOKENS: tl.constexpr = ROWS // PARTS
    # The longest rows first, so that none is left alone at the end.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    first_group = tl.program_id(2) * PARTS
    if PAGED:
        each = tl.cdiv(queries, TOKENS)
        sequence = tile // each
        stop = (sequence + 1) * queries
        first = stop - queries + tile % each * TOKENS
        shift = tl.load(key_totals + sequence) - stop
    else:
        sequence = sequence_of_tile(row_totals, tile, sequences, steps, low, high, TOKENS)
        start = tl.minimum(tl.maximum(tl.load(row_totals + sequence), low), high)
        stop = tl.minimum(tl.load(row_totals + sequence + 1), high)
        first = start + (tile - (start - low) // TOKENS - sequence) * TOKENS
        shift = position_shift(row_totals, key_totals, sequence)
    last = tl.minimum(first + TOKENS, stop) - 1 + shift
    begin = tl.program_id(1) * (RUN * COLUMNS)
    end = tl.minimum(begin + RUN * COLUMNS, last // BLOCK + 1)
    if (first < stop) & (begin < end):
        member = tl.arange(0, ROWS)
        row = first + member // PARTS
        group = first_group + member % PARTS
        live = (row < stop) & (member < TOKENS * PARTS) & (group < GROUPS)
        position = tl.minimum(row + shift, last)
        dim = tl.arange(0, DIMS).to(tl.int64)
        place = row.to(tl.int64) * stride_qt + group.to(tl.int64) * stride_qg
        query = tl.load(
            q + place[:, None] + dim[None, :] * stride_qd,
            mask=live[:, None] & (dim < DIM)[None, :],
            other=0.0,
        )  # [ROWS, DIMS]
        if NEGATED:
            query = (-query.to(tl.float32)).to(query.dtype)  # exact, and E4M3 has no minus
        factor = scale * 1.0
        if q_descale is not None:
            factor *= tl.load(q_descale + group, mask=live, other=0.0)[:, None]
        if k_descale is not None:
            factor *= tl.load(k_descale + first_group * stride_kf)
        keys = k + first_group.to(tl.int64) * stride_kg
        if not PAGED:
            keys += tl.load(key_totals + sequence).to(tl.int64) * stride_kt
        pages = page_table + sequence.to(tl.int64) * stride_pb
        into = scores + (row - low).to(tl.int64) * stride_st + group * stride_sg
        column = tl.arange(0, COLUMNS)
        seen = position // BLOCK
        # Blocks that the oldest query of the tile sees whole need no mask.
        whole = tl.minimum((first + shift + 1) // BLOCK, end) - begin
        middle = begin + tl.maximum(whole, 0) // COLUMNS * COLUMNS
        for block in range(begin, middle, COLUMNS):
            best = best_of_blocks(
                query, keys, pages, stride_kt, stride_kd, stride_pk, stride_pw, block, position,
                factor, DIM, DIMS, BLOCK, WIDTH, COLUMNS, False, PAGED,
            )  # fmt: skip
            tl.store(into[:, None] + (block + column)[None, :], best, mask=live[:, None])
        for block in range(middle, end, COLUMNS):
            best = best_of_blocks(
                query, keys, pages, stride_kt, stride_kd, stride_pk, stride_pw, block, position,
                factor, DIM, DIMS, BLOCK, WIDTH, COLUMNS, True, PAGED,
            )  # fmt: skip
            visible = (block + column)[None, :] <= seen[:, None]
            tl.store(into[:, None] + (block + column)[None, :], best, mask=live[:, None] & visible)
