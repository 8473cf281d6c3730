"""The specification of the gradients, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.attended import attended_rows


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
    """Gradients of ``sparse_attention`` by its queries, keys and values; none by the selection.

    With P the softmax of a row and dP = dO V^T: dV = P^T dO, dS = P (dP - rowsum(P dP)),
    dQ = scale dS K, dK = scale dS^T Q; keys and values sum over all queries that see them.

    Args:
        dout: gradient of the output ``[Tq, Hq, D]``.
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        out: output of ``sparse_attention`` ``[Tq, Hq, D]``; here it is computed again.
        lse: its LSE, float32 ``[Tq, Hq]``; likewise.
        selection: int32 ``[Tq, Hkv, k]``; negative entries are empty, in any place.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits.

    Returns:
        dq, dk and dv in the shapes and dtypes of q, k and v. A query that sees nothing has a
        gradient of 0, and so have a key and a value that nobody sees.
    """
    calls.check_backward(dout, q, k, v, out, lse, selection, cu_q, cu_k, block)
    checks.require_scale("scale", scale)
    dq, dk, dv = (torch.zeros_like(x, dtype=torch.float64) for x in (q, k, v))
    packing = {"cu_q": cu_q, "cu_k": cu_k}
    for a in attended_rows(q, k, v, selection, **packing, block=block, scale=scale):
        up = dout[a.rows, a.head].double()  # [t, D]
        towards = up @ a.values.T  # [t, S]
        mean = (a.weight * towards).sum(-1, keepdim=True)
        logits = a.weight * (towards - mean) * scale
        dq[a.rows, a.head] = logits @ a.keys
        dk[a.tokens, a.group] += logits.T @ a.queries
        dv[a.tokens, a.group] += a.weight.T @ up
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)
