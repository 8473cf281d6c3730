"""Exp-free top-k: raw scores become integers of the same order, the best are kept on the way."""

import triton
import triton.language as tl

from msa_kernels.triton_ops.kernel import newest_block

#: Above the bits of every score, +inf included.
FORCED = tl.constexpr(0x7FFFFFFF)
#: Below the keys of all visible blocks, which are at least those of -inf: what fills empty slots,
#: and one less for hidden blocks, which may not even take an empty slot.
EMPTY = tl.constexpr(-0x7FFFFFFF << 32)
HIDDEN = tl.constexpr((-0x7FFFFFFF << 32) - 1)
#: Above all keys: in slots that are only there to make their number a power of two.
TAKEN = tl.constexpr(0x7FFFFFFFFFFFFFFF)
#: All bits of a block id.
IDS = tl.constexpr(0x7FFFFFFF)


@triton.jit
def rank_keys(score, block, newest, local_blocks, sink_blocks):
    """Keys int64 whose order is that of the selection: score, then the lower block.

    NaN ranks with -inf, -0.0 with 0.0; forced blocks rank above all, hidden ones below.
    """
    score = tl.where(score != score, float("-inf"), score)
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.int32, bitcast=True)
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    forced = (block < sink_blocks) | (block > newest - local_blocks)
    order = tl.where(forced, FORCED, order)
    key = (order.to(tl.int64) << 32) | (block ^ IDS).to(tl.int64)
    return tl.where(block <= newest, key, HIDDEN)


@triton.jit(
    do_not_specialize=[
        "low", "count", "local_blocks", "sink_blocks", "sequences", "steps", "queries",
    ]
)  # fmt: skip
def select_tile(
    scores,
    selection,
    row_totals,
    key_totals,
    stride_st,
    stride_sg,
    stride_sb,
    low,
    count,
    local_blocks,
    sink_blocks,
    sequences,
    steps,
    queries,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    TOPK: tl.constexpr,
    KEPT: tl.constexpr,
    ITEMS: tl.constexpr,
    TILE: tl.constexpr,
    PAGED: tl.constexpr,
):
    """The best blocks of ``ITEMS`` of ``count`` pairs of row and group, ``TILE`` scores at a time.

    ``KEPT`` is the power of two that holds ``TOPK``; ``selection`` is contiguous. Paged, a request
    has ``queries`` rows and ``key_totals`` are the lengths.
    """
    item = tl.program_id(0).to(tl.int64) * ITEMS + tl.arange(0, ITEMS)
    live = item < count
    item = tl.minimum(item, count - 1)
    row, group = item // GROUPS, item % GROUPS
    packed = low + row.to(tl.int32)
    if PAGED:
        request = packed // queries
        newest = (tl.load(key_totals + request) - queries + packed % queries) // BLOCK
    else:
        newest, _ = newest_block(row_totals, key_totals, packed, sequences, steps, BLOCK)
    newest = tl.where(live, newest, -1)
    base = scores + row * stride_st + group * stride_sg
    place = tl.arange(0, KEPT)[None, :]
    # Every slot holds another key, so that the least one is one slot.
    best = tl.where(place < TOPK, place.to(tl.int64) + EMPTY, place.to(tl.int64) * -1 + TAKEN)
    best = tl.broadcast_to(best, (ITEMS, KEPT))
    for start in range(0, tl.max(newest, 0) + 1, TILE):
        block = start + tl.arange(0, TILE)
        visible = block[None, :] <= newest[:, None]
        score = tl.load(
            base[:, None] + block.to(tl.int64)[None, :] * stride_sb,
            mask=visible,
            other=float("-inf"),
        )
        key = rank_keys(score, block[None, :], newest[:, None], local_blocks, sink_blocks)
        most, least = tl.max(key, 1), tl.min(best, 1)
        # A later tile has few blocks that beat the least kept, most often none.
        while tl.max((most > least).to(tl.int32), 0) > 0:
            replaced = (best == least[:, None]) & (most > least)[:, None]
            best = tl.where(replaced, most[:, None], best)
            key = tl.where(key == most[:, None], HIDDEN, key)
            most, least = tl.max(key, 1), tl.min(best, 1)
    kept = (best > EMPTY + KEPT) & (place < TOPK)
    block = (best & IDS).to(tl.int32) ^ IDS
    # Ascending: the place of a block is how many smaller ones are kept.
    smaller = (block[:, None, :] < block[:, :, None]) & kept[:, None, :]
    into = selection + item[:, None] * TOPK
    tl.store(into + tl.sum(smaller.to(tl.int32), 2), block, mask=live[:, None] & kept)
    found = tl.sum(kept.to(tl.int32), 1)
    rest = (place >= found[:, None]) & (place < TOPK)
    tl.store(into + place, tl.full([ITEMS, KEPT], -1, tl.int32), mask=live[:, None] & rest)
