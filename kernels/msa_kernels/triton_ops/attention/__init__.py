"""Sparse attention over packed sequences: two ways to the same numbers, chosen by shape."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.quantized import output_dtype
from msa_kernels.triton_ops.attention import key_outer, query_outer
from msa_kernels.triton_ops.limits import INTERPRETED, require_sizes, require_tensors
from msa_kernels.triton_ops.tiles import KEY_OUTER, tile_of

WAYS = {"key_outer": key_outer.attend_packed, "query_outer": query_outer.attend_packed}


def sparse_attention(
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
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        selection: int32 ``[Tq, Hkv, k]``; negative entries are empty, in any place.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits, ``D ** -0.5`` in the paper.
        q_descale: float32 ``[Hq]``, factors of E4M3 queries; 1 if left out.
        k_descale: float32 ``[Hkv]``, those of the keys.
        v_descale: float32 ``[Hkv]``, those of the values.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype (bfloat16 for E4M3) and LSE float32 ``[Tq, Hq]`` (natural
        logarithm). A row with nothing visible gives 0 and -inf.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_attention(q, k, v, selection, cu_q, cu_k, block, read=INTERPRETED)
    calls.check_factors(
        ("q", q, q_descale), ("k", k, k_descale), ("v", v, v_descale), read=INTERPRETED
    )
    checks.require_scale("scale", scale)
    require_tensors(q=q, k=k, v=v, selection=selection, cu_q=cu_q, cu_k=cu_k)
    require_sizes(
        dim=q.shape[2], block=block, topk=selection.shape[2], share=q.shape[1] // k.shape[1]
    )
    out = q.new_empty(q.shape, dtype=output_dtype(q))
    lse = q.new_empty(q.shape[:2], dtype=torch.float32)
    way = WAYS[way_of(q, k, selection, block)]
    way(
        q, k, v, selection, out, lse, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
        factors=(q_descale, k_descale, v_descale),
    )  # fmt: skip
    return out, lse


def way_of(q: Tensor, k: Tensor, selection: Tensor, block: int) -> str:
    """``key_outer`` where the lists of the blocks fill tiles on average, else ``query_outer``.

    A rule from arithmetic, not yet measured: a tile of a list that is mostly empty computes rows
    that nobody asked for, and a list shorter than that reads its block no seldomer.
    """
    chosen = len(q) * selection.shape[2] * (q.shape[1] // k.shape[1])
    return "key_outer" if chosen * block >= tile_of(KEY_OUTER, q).rows * len(k) else "query_outer"
