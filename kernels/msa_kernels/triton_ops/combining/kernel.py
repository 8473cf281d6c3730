"""Merging partial attentions over disjoint keys by their LSEs."""

import triton
import triton.language as tl


@triton.jit
def merge_tile(
    outs,
    lses,
    out,
    lse,
    stride_pn,
    stride_pt,
    stride_ph,
    stride_pd,
    stride_ln,
    stride_lt,
    stride_lh,
    stride_ot,
    stride_oh,
    stride_od,
    parts,
    count,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    ITEMS: tl.constexpr,
):
    """``ITEMS`` of ``count`` pairs of row and head. ``lse`` is contiguous.

    A part with LSE -inf is not read; one with LSE NaN makes the row NaN.
    """
    item = tl.program_id(0).to(tl.int64) * ITEMS + tl.arange(0, ITEMS)
    live = item < count
    row, head = item // HEADS, item % HEADS
    sizes = lses + row * stride_lt + head * stride_lh
    top = tl.full([ITEMS], float("-inf"), tl.float32)
    first = sizes
    for _ in range(parts):
        top = tl.maximum(top, tl.load(sizes, mask=live, other=float("-inf")))
        sizes += stride_ln  # a pointer does not overflow where a product of ints would
    sizes = first
    top = tl.where(top == float("-inf"), 0.0, top)
    dim = tl.arange(0, DIMS).to(tl.int64)  # a channel's stride may be that of a whole batch
    places = outs + (row * stride_pt + head * stride_ph)[:, None] + dim[None, :] * stride_pd
    total = tl.zeros([ITEMS], tl.float32)
    acc = tl.zeros([ITEMS, DIMS], tl.float32)
    for _ in range(parts):
        weight = tl.exp(tl.load(sizes, mask=live, other=float("-inf")) - top)
        value = tl.load(
            places,
            mask=(weight > 0)[:, None] & (dim < DIM)[None, :],
            other=0.0,
        )
        acc += weight[:, None] * value.to(tl.float32)
        total += weight
        sizes += stride_ln
        places += stride_pn
    whole = tl.where(total == 0, 1.0, total)
    result = acc / whole[:, None]
    tl.store(
        out + (row * stride_ot + head * stride_oh)[:, None] + dim[None, :] * stride_od,
        result.to(out.dtype.element_ty),
        mask=live[:, None] & (dim < DIM)[None, :],
    )
    tl.store(lse + item, tl.where(total == 0, float("-inf"), top + tl.log(whole)), mask=live)
