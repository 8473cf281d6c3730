"""Sparse attention of packed sequences, with the key blocks outermost."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls
from msa.quantized import E4M3, output_dtype
from msa_kernels.gluon_ops.arms import Arm
from msa_kernels.gluon_ops.attention.kernel import attend_units
from msa_kernels.gluon_ops.attention.planning import plan_units
from msa_kernels.gluon_ops.checking import Factors, check_attending
from msa_kernels.gluon_ops.launching import (
    as_given,
    as_matrix,
    boxes,
    gl_float,
    launch,
    merge_slots,
)

#: Rows of a product, M: queries times heads of a group.
ROWS = 128
#: Slots for gathered queries, tiles of logits and outputs; tiles of a unit.
SLOTS, TILES, RUN = 2, 2, 16
#: Bytes of partial outputs that are held at a time.
_HELD = 1 << 31


def sparse_attention(
    arm: Arm,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Exact softmax attention over the visible tokens of the selected blocks. Not differentiable.

    Args:
        arm: where to run.
        q: ``[Tq, Hq, D]``, float16, bfloat16 or E4M3.
        k: ``[Tk, Hkv, D]``, of the same dtype or in E4M3; or ``[Tk, Hkv, D / 2]`` in NVFP4 beside
            queries of 16 bits.
        v: ``[Tk, Hkv, D]``, of k's dtype.
        selection: int32 ``[Tq, Hkv, k]``; negative entries are empty, in any place.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block, 16, 32, 64 or 128.
        scale: factor on the logits, ``D ** -0.5`` in the paper.
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 E4M3 ``[Tk, Hkv, D / 16]``.
        v_descale: those of the values.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype (bfloat16 for E4M3) and LSE float32 ``[Tq, Hq]`` (natural
        logarithm). A row with nothing visible gives 0 and -inf.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_attention(q, k, v, selection, cu_q, cu_k, block, read=arm.simulated, packed=True)
    factors = (q_descale, k_descale, v_descale)
    check_attending(arm, q, k, v, factors, scale=scale, block=block, topk=selection.shape[2])
    arm.require(q=q, k=k, v=v, selection=selection, cu_q=cu_q, cu_k=cu_k)
    out = q.new_empty(q.shape, dtype=output_dtype(q))
    lse = q.new_empty(q.shape[:2], dtype=torch.float32)
    attend_packed(
        arm, q, k, v, selection, out, lse, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
        factors=factors,
    )  # fmt: skip
    return out, lse


def attend_packed(
    arm: Arm,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    factors: Factors = (None, None, None),
) -> None:
    """Fill in ``out`` ``[Tq, Hq, D]`` and ``lse`` ``[Tq, Hq]``, both contiguous."""
    heads, dim = q.shape[1:]
    topk = selection.shape[2]
    each = heads * topk * dim * out.element_size()
    chunk = max(_HELD // each, 1)
    # What descriptors need: matrices of adjacent columns. Queries are rows of one head each.
    flat_q = as_matrix(q, dim)
    flat_k, flat_v = (as_matrix(x, x.shape[1] * x.shape[2]) for x in (k, v))
    given = as_given(*zip((q, k, v), factors, strict=True))
    for low in range(0, len(q), chunk):
        part = slice(low, low + chunk)
        rows = len(out[part])
        outs = out.new_empty((rows, heads, topk, dim))
        lses = lse.new_full((rows, heads, topk), -torch.inf)
        if len(k):
            _attend_chunk(
                arm, flat_q, flat_k, flat_v, selection[part], outs, lses, low, cu_q=cu_q, cu_k=cu_k,
                block=block, scale=scale, given=given,
            )  # fmt: skip
        merge_slots(arm, outs, lses, out[part], lse[part])


def _attend_chunk(
    arm: Arm,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    outs: Tensor,
    lses: Tensor,
    low: int,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    given: tuple[Tensor | None, ...],
) -> None:
    """Partial outputs of rows ``low`` to ``low + len(outs)``; ``given`` by :func:`as_given`."""
    heads, topk, dim = outs.shape[1:]
    groups = selection.shape[1]
    share = heads // groups
    units = plan_units(
        selection, low, cu_q=cu_q, cu_k=cu_k, block=block, tokens=len(k),
        queries=ROWS // share * RUN,
    )  # fmt: skip
    width = k.shape[1] // groups  # elements of a row, of NVFP4 bytes
    launch(
        arm,
        attend_units,
        (len(units.plan),),
        q,
        boxes(q, ROWS, dim, gathered=True) if arm.tensor_memory else None,
        boxes(k, block, width),
        boxes(v, block, width),
        outs,
        lses,
        units.order,
        units.plan,
        *given,
        low,
        float(scale),
        near=q,
        GROUPS=groups,
        SHARE=share,
        DIM=dim,
        BLOCK=block,
        TOPK=topk,
        ROWS=ROWS,
        SLOTS=SLOTS,
        TILES=TILES,
        WIDE_KEYS=k.dtype != q.dtype,
        WIDE_VALUES=k.element_size() == 1,
        WIDE=gl_float(torch.float16 if q.dtype == E4M3 else q.dtype),
        Q_BYTES=ROWS * dim * q.element_size(),
        KV_BYTES=2 * block * width * k.element_size(),
    )
