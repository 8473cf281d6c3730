"""Sparse attention of consecutive queries with a running softmax: any device, any selection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msa.fast.pieces import Piece, cut_pieces, exponentiate
from msa.fast.scoring import working_dtype


def attend_rows(
    q: Tensor, keys: Tensor, values: Tensor, selection: Tensor, first: int, block: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of consecutive queries of one group, safe for any selection and any logits.

    Args:
        q: ``[n, R, D]``, the heads of the group.
        keys: ``[S, D]`` of the whole sequence.
        values: ``[S, D]``.
        selection: int32 ``[n, k]``.
        first: position of the first query.
        block: tokens per block.
        scale: factor on the logits.

    Returns:
        out ``[n, R, D]`` and LSE ``[n, R]``, in the working dtype.
    """
    work = working_dtype(q)
    pieces = cut_pieces(selection, first, block, q.shape[1])
    weighed = F.pad(values.to(work), (0, 1), value=1.0)
    return attend_pieces(q.to(work) * scale, keys.to(work), weighed, pieces)


def attend_pieces(
    queries: Tensor, keys: Tensor, values: Tensor, pieces: list[Piece]
) -> tuple[Tensor, Tensor]:
    """The same over given pieces.

    Args:
        queries: ``[n, R, D]``, with the scale in them.
        keys: ``[S, D]``, of the queries' dtype.
        values: ``[S, E + 1]``, likewise, with ones in the last column; the LSE needs no other.
        pieces: of these queries and keys.

    Returns:
        out ``[n, R, E]`` and LSE ``[n, R]``.
    """
    top = queries.new_full((*queries.shape[:2], 1), -torch.inf)
    acc = queries.new_zeros((*queries.shape[:2], values.shape[1]))  # sums of [v, 1]
    for piece in pieces:
        logits = piece.hide(piece.take(queries) @ keys[piece.tokens].T, -torch.inf)
        before = piece.take(top)
        best = torch.maximum(before, logits.amax(-1, keepdim=True))
        # Again: what is hidden weighs nothing, and not the least that is told apart.
        weight = piece.hide(exponentiate(logits.sub_(best)))
        piece.put(acc, piece.take(acc) * (before - best).exp_() + weight @ values[piece.tokens])
        piece.put(top, best)
    total = acc[..., -1:]
    # A row with nothing visible has a total of zero: output 0, LSE -inf.
    out = acc[..., :-1] / total.clamp_min(torch.finfo(total.dtype).tiny)
    return out, (top + total.log())[..., 0]
