"""The specification of attention over a selection, and of merging parts of it, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.attended import attended_rows
from msa.quantized import decode, output_dtype


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
    """Exact softmax attention over the visible tokens of the selected blocks.

    Keys and values may be E4M3, beside queries of any floating dtype; or NVFP4 ``[Tk, Hkv, D / 2]``
    with scales in E4M3 ``[Tk, Hkv, D / 16]`` (:mod:`msa.nvfp4`).

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
        k_descale: float32 ``[Hkv]``, those of the keys; of NVFP4 its scales.
        v_descale: float32 ``[Hkv]``, those of the values; of NVFP4 its scales.

    Returns:
        out ``[Tq, Hq, D]`` in q's dtype (bfloat16 for E4M3) and LSE float32 ``[Tq, Hq]`` (natural
        logarithm). A row with nothing visible gives 0 and -inf.
    """
    calls.check_attention(q, k, v, selection, cu_q, cu_k, block, packed=True)
    checks.require_scale("scale", scale)
    out = torch.zeros_like(q, dtype=output_dtype(q))
    q = decode("q", q, q_descale, axis=1)
    k = decode("k", k, k_descale, axis=1)
    v = decode("v", v, v_descale, axis=1)
    lse = q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)
    packing = {"cu_q": cu_q, "cu_k": cu_k}
    for a in attended_rows(q, k, v, selection, **packing, block=block, scale=scale):
        out[a.rows, a.head] = (a.weight @ a.values).to(out.dtype)
        lse[a.rows, a.head] = a.lse.float()
    return out, lse


def combine(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Merge ``n`` partial attentions over disjoint keys.

    Args:
        outs: float32 ``[n, Tq, Hq, D]``, each normalised by itself.
        lses: float32 ``[n, Tq, Hq]``; -inf marks an empty part, whose output is not read.

    Returns:
        out float32 ``[Tq, Hq, D]`` and LSE float32 ``[Tq, Hq]``.
    """
    calls.check_partials(outs, lses)
    parts = lses.double()
    total = torch.logsumexp(parts, 0)
    weight = torch.exp(parts - total.nan_to_num(neginf=0.0))[..., None]
    out = torch.where(weight > 0, outs.double() * weight, 0.0).sum(0)
    return out.float(), total.float()
