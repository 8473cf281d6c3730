"""Gradients of sparse attention, key blocks outermost."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msa import calls, checks
from msa.fast.lists import list_chunks
from msa.fast.pieces import cut_pieces, exponentiate
from msa.fast.scoring import working_dtype
from msa.fast.selected import Selected
from msa.fast.small import differentiate, worth_passes
from msa.fast.threads import for_each
from msa.packing import Segment, segments


@torch.no_grad()
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

    As :func:`msa.reference.sparse_attention_backward`, but that the softmax comes from ``lse``, and
    the sum of dO times O from ``out``: both are the forward's own. Every run gives the same bits.

    Args:
        dout: gradient of the output ``[Tq, Hq, D]``.
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        out: output of ``sparse_attention`` ``[Tq, Hq, D]``.
        lse: its LSE, float32 ``[Tq, Hq]``.
        selection: int32 ``[Tq, Hkv, k]``; negative entries are empty, in any place.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits.

    Returns:
        dq, dk and dv in the shapes and dtypes of q, k and v. A query that sees nothing has a
        gradient of 0, and so have a key and a value that nobody sees.

    Raises:
        ValueError: a shape or a length that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_backward(dout, q, k, v, out, lse, selection, cu_q, cu_k, block)
    checks.require_scale("scale", scale)
    groups, wide = k.shape[1], working_dtype(q)
    heads = q.shape[1] // groups
    if not worth_passes(selection, len(k), block, heads, q.shape[2]):
        selected = Selected.of(selection, cu_q=cu_q, cu_k=cu_k, block=block)
        found = differentiate(dout, q, k, v, out, lse, selected, scale)
        dq, dk, dv = (x.to(like.dtype) for x, like in zip(found, (q, k, v), strict=True))
        return dq, dk, dv
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))

    def pass_over(part: tuple[Segment, int]) -> None:
        """One group of one sequence: all that adds to its keys' gradients, in one order."""
        s, g = part
        mine = slice(g * heads, (g + 1) * heads)
        tokens = slice(s.k_start, s.k_stop)
        # What is subtracted behind a product rides in it as one more column, beside ones.
        keys, values = (F.pad(x[tokens, g].to(wide), (0, 1), value=1.0) for x in (k, v))
        dkeys, dvalues = torch.zeros_like(keys), torch.zeros_like(values)
        for start, stop in list_chunks(s, block):
            rows = slice(start, stop)
            up = dout[rows, mine].to(wide)
            mean = (up * out[rows, mine].to(wide)).sum(-1)
            ups = torch.cat([up, -mean[..., None]], -1)  # [n, R, D + 1]
            queries = torch.cat([q[rows, mine].to(wide) * scale, -lse[rows, mine, None]], -1)
            dqueries = torch.zeros_like(queries)
            first = start - s.q_start + s.first_position
            for piece in cut_pieces(selection[rows, g], first, block, heads):
                key, value = keys[piece.tokens], values[piece.tokens]
                query, up = piece.take(queries), piece.take(ups)
                weight = piece.hide(exponentiate(query @ key.T))  # [m, R, tokens]
                slope = (up @ value.T).mul_(weight)
                piece.add(dqueries, slope @ key)
                dkeys[piece.tokens].addmm_(slope.flatten(0, 1).T, query.flatten(0, 1))
                dvalues[piece.tokens].addmm_(weight.flatten(0, 1).T, up.flatten(0, 1))
            dq[rows, mine] = (dqueries[..., :-1] * scale).to(q.dtype)
        dk[tokens, g], dv[tokens, g] = dkeys[:, :-1].to(k.dtype), dvalues[:, :-1].to(v.dtype)

    parts = [(s, g) for s in segments(cu_q, cu_k) for g in range(groups)]
    for_each(pass_over, parts, spread=q.device.type == "cpu")
    return dq, dk, dv
