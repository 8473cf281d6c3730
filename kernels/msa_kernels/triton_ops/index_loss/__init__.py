"""The loss that aligns the index branch with attention, and its gradient, in two kernels.

Queries by their slots, keys by their lists, as in ``backward``: every program owns what it writes,
so the result is the same every time. Memory beside the results: an LSE of every head and row.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from msa import calls, checks
from msa_kernels.triton_ops.attention.lists import list_slots
from msa_kernels.triton_ops.index_loss.kernel import index_keys, index_rows
from msa_kernels.triton_ops.limits import INTERPRETED, on, require_sizes, require_tensors
from msa_kernels.triton_ops.tiles import INDEX_KEYS, INDEX_ROWS, halvings, padded, tile_of

#: Keys of a program: a gradient of a whole block of 128 would not fit beside both products.
_KEYS = 64


def index_kl(
    q_idx: Tensor,
    k_idx: Tensor,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    index_scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The index branch's loss and gradients, as :func:`msa.reference.index_kl`.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_index_kl(q_idx, k_idx, q, k, selection, cu_q, cu_k, block, read=INTERPRETED)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    require_tensors(q_idx=q_idx, k_idx=k_idx, q=q, k=k, selection=selection, cu_q=cu_q, cu_k=cu_k)
    require_sizes(
        dim=q.shape[2],
        block=block,
        topk=selection.shape[2],
        share=q.shape[1] // k.shape[1],
        index_dim=q_idx.shape[2],
    )
    return align(
        q_idx, k_idx, q, k, selection,
        cu_q=cu_q, cu_k=cu_k, block=block, scale=scale, index_scale=index_scale,
    )  # fmt: skip


def align(
    q_idx: Tensor,
    k_idx: Tensor,
    q: Tensor,
    k: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    index_scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of arguments that are known to be right."""
    rows, heads, dim = q.shape
    groups, topk = selection.shape[1:]
    index_heads, index_dim = k_idx.shape[1:]
    parts = groups // index_heads
    count = max(rows * groups, 1)
    cu_q, cu_k = cu_q.contiguous(), cu_k.contiguous()
    dq, dk = (x.new_empty(x.shape, dtype=torch.float32) for x in (q_idx, k_idx))
    losses, index_lse = dq.new_empty((2, rows, groups))
    lse = dq.new_empty((rows, heads))
    sequences = len(cu_q) - 1
    sizes = {
        "GROUPS": groups,
        "SHARE": heads // groups,
        "DIM": dim,
        "DIMS": padded(dim),
        "INDEX": index_dim,
        "INDEXES": padded(index_dim),
        "BLOCK": block,
        "TOPK": topk,
    }
    apart = 0 if index_heads == 1 else k_idx.stride(1)
    strides = (*q_idx.stride(), k_idx.stride(0), apart, k_idx.stride(2), *q.stride(), *k.stride())
    scales = (float(scale), float(index_scale), float(index_scale) / count)
    with on(q):
        if rows:
            index_rows[rows * groups,](
                q_idx, k_idx, q, k, selection, losses, lse, index_lse, dq, cu_q, cu_k,
                *strides,
                *selection.stride(),
                *scales,
                sequences,
                halvings(sequences),
                HEADS=padded(heads // groups),
                WIDTH=padded(block),
                SLOTS=padded(topk, 2),
                **sizes,
                **tile_of(INDEX_ROWS, q).options,
            )  # fmt: skip
        tile = tile_of(INDEX_KEYS, q)
        found = list_slots(selection, 0, rows, cu_q=cu_q, cu_k=cu_k, block=block, tokens=len(k))
        keys = min(padded(block), _KEYS)
        index_keys[index_heads * found.blocks, triton.cdiv(block, keys)](
            q_idx, k_idx, q, k, found.order, found.starts, lse, index_lse, dk, cu_q, cu_k,
            *strides,
            *scales,
            found.blocks,
            len(k),
            sequences,
            halvings(sequences),
            PARTS=parts,
            KEYS=keys,
            ROWS=tile.rows,
            **sizes,
            **tile.options,
        )  # fmt: skip
    return losses.sum() / count, dq, dk
