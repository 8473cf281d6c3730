"""Gradients of attention over a selection: queries by their slots, keys and values by their lists.

Both kernels own what they write, so the result is the same every time. A list is one program's
work: a block that very many queries chose, such as a forced first block, takes as long as its list.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls, checks
from msa_kernels.triton_ops.attention.lists import list_slots
from msa_kernels.triton_ops.backward.kernel import grad_keys, grad_queries
from msa_kernels.triton_ops.limits import INTERPRETED, on, require_sizes, require_tensors
from msa_kernels.triton_ops.tiles import GRAD_KEYS, GRAD_QUERIES, halvings, padded, tile_of

#: Rows whose products of output and its gradient are held at a time.
_SUMMED = 1 << 14
#: Keys of a program: two gradients of a whole block of 128 would not fit the registers.
_KEYS = 64


def sparse_attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``sparse_attention``, as :func:`msa.reference.sparse_attention_backward`.

    ``out`` and ``lse`` are the forward's own.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_backward(dout, q, k, v, out, lse, selection, cu_q, cu_k, block, read=INTERPRETED)
    checks.require_scale("scale", scale)
    require_tensors(
        dout=dout, q=q, k=k, v=v, out=out, lse=lse, selection=selection, cu_q=cu_q, cu_k=cu_k
    )
    share = q.shape[1] // k.shape[1]
    require_sizes(dim=q.shape[2], block=block, topk=selection.shape[2], share=share)
    return differentiate(
        dout, q, k, v, out, lse, selection, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale
    )


def differentiate(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of arguments that are known to be right."""
    rows, heads, dim = q.shape
    groups, topk = selection.shape[1:]
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    cu_q, cu_k, lse = cu_q.contiguous(), cu_k.contiguous(), lse.contiguous()
    delta = torch.empty_like(lse)  # rowsum of dO times O
    for part in (slice(low, low + _SUMMED) for low in range(0, rows, _SUMMED)):
        delta[part] = (dout[part].float() * out[part].float()).sum(-1)
    sequences = len(cu_q) - 1
    sizes = {
        "GROUPS": groups,
        "SHARE": heads // groups,
        "DIM": dim,
        "DIMS": padded(dim),
        "BLOCK": block,
        "TOPK": topk,
    }
    strides = (*dout.stride(), *q.stride(), *k.stride(), *v.stride())
    with on(q):
        tile = tile_of(GRAD_QUERIES, q)
        if rows:
            grad_queries[rows * groups,](
                dout, q, k, v, lse, delta, selection, dq, cu_q, cu_k,
                *strides,
                *selection.stride(),
                float(scale),
                sequences,
                halvings(sequences),
                HEADS=padded(heads // groups),
                WIDTH=padded(block),
                SLOTS=padded(topk, 2),
                **sizes,
                **tile.options,
            )  # fmt: skip
        tile = tile_of(GRAD_KEYS, q)
        found = list_slots(selection, 0, rows, cu_q=cu_q, cu_k=cu_k, block=block, tokens=len(k))
        keys = min(padded(block), _KEYS)
        grad_keys[groups * found.blocks, triton.cdiv(block, keys)](
            dout, q, k, v, lse, delta, found.order, found.starts, dk, dv, cu_q, cu_k,
            *strides,
            float(scale),
            found.blocks,
            len(k),
            sequences,
            halvings(sequences),
            KEYS=keys,
            ROWS=tile.rows,
            **sizes,
            **tile.options,
        )  # fmt: skip
    return dq, dk, dv
