"""The newest keys, values and index keys into their places in the pages of a cache."""

import triton
import triton.language as tl

#: E4M3: its largest number and its least normal one, and NaN's byte.
LARGEST = tl.constexpr(448.0)
NORMAL = tl.constexpr(2.0**-6)
NAN = tl.constexpr(0x7F)
#: Added and taken off, it rounds a float32 below 2^22 to an integer, halves to even.
ROUNDING = tl.constexpr(1.5 * 2.0**23)


@triton.jit
def e4m3_bytes(x):
    """The nearest E4M3 of float32, halves to even, what is beyond its range at the end of it.

    In integers: Triton's interpreter rounds such a conversion another way than a GPU.
    """
    size = tl.minimum(tl.abs(x), LARGEST)
    bits = size.to(tl.int32, bitcast=True)
    # 20 bits of mantissa fall away, the carry goes into the exponent, whose bias is 7 and not 127.
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    least = (size * 512.0 + ROUNDING - ROUNDING).to(tl.int32)  # steps of 2^-9
    code = tl.where(size < NORMAL, least, normal)
    sign = (x.to(tl.int32, bitcast=True) >> 24) & 0x80
    return tl.where(x != x, NAN, code | sign).to(tl.uint8)


@triton.jit
def put_heads(
    source,
    target,
    descale,
    stride_sh,
    stride_sd,
    stride_th,
    stride_td,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
):
    """All heads of one token; in E4M3 divided by the factors of their heads and held in range."""
    head = tl.arange(0, ROWS).to(tl.int64)
    dim = tl.arange(0, DIMS).to(tl.int64)
    fits = (head < HEADS)[:, None] & (dim < DIM)[None, :]
    x = tl.load(source + head[:, None] * stride_sh + dim[None, :] * stride_sd, mask=fits, other=0.0)
    if target.dtype.element_ty == tl.uint8:
        x = x.to(tl.float32)
        if descale is not None:
            # Rounded once: a quotient that is only nearly right becomes another byte.
            factor = tl.load(descale + head, mask=head < HEADS, other=1.0)[:, None]
            x = tl.div_rn(x, tl.broadcast_to(factor, (ROWS, DIMS)))
        x = e4m3_bytes(x)
    place = target + head[:, None] * stride_th + dim[None, :] * stride_td
    tl.store(place, x.to(target.dtype.element_ty), mask=fits)


@triton.jit(do_not_specialize=["queries"])
def append_tokens(
    k,
    v,
    k_idx,
    k_pages,
    v_pages,
    index_pages,
    page_table,
    k_lens,
    k_descale,
    v_descale,
    k_idx_descale,
    stride_kb,
    stride_kq,
    stride_kh,
    stride_kd,
    stride_vb,
    stride_vq,
    stride_vh,
    stride_vd,
    stride_xb,
    stride_xq,
    stride_xh,
    stride_xd,
    stride_kp,
    stride_kph,
    stride_kpt,
    stride_kpd,
    stride_vp,
    stride_vph,
    stride_vpt,
    stride_vpd,
    stride_xp,
    stride_xph,
    stride_xpt,
    stride_xpd,
    stride_tb,
    stride_tw,
    queries,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    DIMS: tl.constexpr,
    INDEX_HEADS: tl.constexpr,
    INDEX_ROWS: tl.constexpr,
    INDEX: tl.constexpr,
    INDEXES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program (i, part): token ``i % queries`` of request ``i // queries``; keys, values or index.

    Pages of bytes are in E4M3.
    """
    request = (tl.program_id(0) // queries).to(tl.int64)
    query = (tl.program_id(0) % queries).to(tl.int64)
    position = tl.load(k_lens + request) - queries + query
    page = tl.load(page_table + request * stride_tb + (position // BLOCK) * stride_tw).to(tl.int64)
    slot = position % BLOCK
    if tl.program_id(1) == 0:
        put_heads(
            k + request * stride_kb + query * stride_kq,
            k_pages + page * stride_kp + slot * stride_kpt,
            k_descale, stride_kh, stride_kd, stride_kph, stride_kpd, GROUPS, ROWS, DIM, DIMS,
        )  # fmt: skip
    elif tl.program_id(1) == 1:
        put_heads(
            v + request * stride_vb + query * stride_vq,
            v_pages + page * stride_vp + slot * stride_vpt,
            v_descale, stride_vh, stride_vd, stride_vph, stride_vpd, GROUPS, ROWS, DIM, DIMS,
        )  # fmt: skip
    else:
        put_heads(
            k_idx + request * stride_xb + query * stride_xq,
            index_pages + page * stride_xp + slot * stride_xpt,
            k_idx_descale, stride_xh, stride_xd, stride_xph, stride_xpd,
            INDEX_HEADS, INDEX_ROWS, INDEX, INDEXES,
        )  # fmt: skip
