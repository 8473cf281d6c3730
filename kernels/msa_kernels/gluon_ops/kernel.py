"""What kernels share: the softmax of one tile, and tiles that change their dtype."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from msa_kernels.gluon_ops.language import byte_registers, group_registers


@gluon.jit
def logit_factor(
    q_factors, k_factors, scale, head, group, ROWS: gl.constexpr, layout: gl.constexpr
):
    """What logits are times, with exponents to base two; ``head`` is that of each row."""
    factor = gl.full([ROWS], 1.0, gl.float32, layout) * (scale * 1.4426950408889634)
    if q_factors is not None:
        factor = factor * gl.load(q_factors + head)
    if k_factors is not None:
        factor = factor * gl.load(k_factors + group)
    return factor


@gluon.jit
def softmax_tile(logit, factor, newest, live, BLOCK: gl.constexpr, layout: gl.constexpr):
    """Weights of up to 1, what outputs are to be times, and the LSE of each row.

    A row sees the tokens up to ``newest`` if it is ``live``; else its weights are 0.
    """
    token = gl.arange(0, BLOCK, gl.SliceLayout(0, layout))
    seen = (token[None, :] <= newest[:, None]) & live[:, None]
    logit = gl.where(seen, logit * factor[:, None], float("-inf"))
    top = gl.max(logit, 1)
    top = gl.where(top == float("-inf"), 0.0, top)
    weight = gl.exp2(logit - top[:, None])
    total = gl.sum(weight, 1)
    lse = (top + gl.log2(total)) * 0.6931471805599453
    return weight, 1.0 / gl.where(total == 0.0, 1.0, total), lse


@gluon.jit
def load_scales(
    scales, row, column, rows, ROWS: gl.constexpr, DIM: gl.constexpr, STRIDE: gl.constexpr
):
    """Scales ``[ROWS, DIM / 16]`` of an NVFP4 tile that begins there; zeros from ``rows`` on.

    They come by addresses: a row of them has 4 or 8 bytes, and bulk copies take 16 at least. That
    takes as long as a copy, so it is begun before a tile is waited for. Where there are no
    ``scales`` it gives a number that nobody reads.
    """
    scale = 0
    if scales is not None:
        layout: gl.constexpr = gl.SliceLayout(2, group_registers(ROWS, DIM, gl.num_warps()))
        member = gl.arange(0, ROWS, gl.SliceLayout(1, layout))
        of = gl.arange(0, DIM // 16, gl.SliceLayout(0, layout))
        # A pool of pages may have more scales than 31 bits count.
        place = (row + member).to(gl.int64) * STRIDE + column
        live = (member < rows)[:, None]
        scale = gl.load(scales + place[:, None] + of[None, :], mask=live, other=0.0)
    return scale


@gluon.jit
def widen_tile(source, into, scales, scale, rows, ROWS: gl.constexpr, DIM: gl.constexpr):
    """:func:`widen_rows`, or :func:`widen_groups` with a ``scale`` of :func:`load_scales`."""
    if scales is None:
        widen_rows(source, into, rows, ROWS, DIM)
    else:
        widen_groups(source, into, scale, ROWS, DIM)


@gluon.jit
def widen_groups(source, into, scale, ROWS: gl.constexpr, DIM: gl.constexpr):
    """Two E2M1 elements a byte, times the scale of their 16 channels, in the dtype of ``into``.

    That is exact: a value has 6 bits at most. Rows whose scales are zeros become zeros, whatever
    they hold, for E2M1 has no NaN.
    """
    warps: gl.constexpr = gl.num_warps()
    layout: gl.constexpr = group_registers(ROWS, DIM, warps)
    value = gl.fp4_to_fp(source.load(byte_registers(ROWS, DIM, warps)), into.dtype, 1)
    value = value.reshape([ROWS, DIM // 16, 16])
    value = gl.convert_layout(value, layout, assert_trivial=True)
    scale, value = gl.broadcast(gl.expand_dims(scale, 2), value)
    value = value * scale.to(into.dtype)
    into.store(value.reshape([ROWS, DIM]))


@gluon.jit
def widen_rows(source, into, rows, ROWS: gl.constexpr, DIM: gl.constexpr):
    """``source`` in the dtype of ``into``, which may be itself, with zeros from row ``rows`` on.

    What lies behind a last key may be NaN, of which a weight of 0 leaves NaN. Products and copies
    see the rows once the caller has put a fence behind.
    """
    warps: gl.constexpr = gl.num_warps()
    layout: gl.constexpr = gl.BlockedLayout(
        [1, 8], [32 // (DIM // 8), DIM // 8], [warps, 1], [1, 0]
    )
    row = gl.arange(0, ROWS, gl.SliceLayout(1, layout))
    value = source.load(layout).to(into.dtype)
    into.store(gl.where((row < rows)[:, None], value, gl.zeros_like(value)))
