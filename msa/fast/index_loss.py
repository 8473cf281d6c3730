"""The index branch's loss and its gradient, key blocks outermost."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msa import calls, checks
from msa.fast.lists import list_chunks
from msa.fast.pieces import Piece, cut_pieces, exponentiate
from msa.fast.portable import attend_pieces
from msa.fast.scoring import working_dtype
from msa.fast.threads import for_each, large_products
from msa.packing import Segment, segments


@torch.no_grad()
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
    """How far the index branch is from attention, and where its queries and keys should go.

    The mean over queries and groups of KL(teacher || student) over the visible tokens of the
    selected blocks; what they are says :func:`msa.reference.index_kl`. Every run gives the same
    bits.

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        selection: int32 ``[Tq, Hkv, k]``; negative entries are empty, in any place.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits, ``D ** -0.5`` in the paper.
        index_scale: factor on the token index scores, ``Di ** -0.5``.

    Returns:
        loss float32 ``[]`` in nats, and its gradients by q_idx and k_idx in their shapes, float32
        (float64 of a float64 q_idx). A query that sees nothing adds nothing. Without a query all
        are 0.

    Raises:
        ValueError: a shape or a length that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_index_kl(q_idx, k_idx, q, k, selection, cu_q, cu_k, block)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    narrow = working_dtype(q_idx)
    wide = torch.promote_types(narrow, working_dtype(q))
    groups, own = k.shape[1], k_idx.shape[1] > 1
    heads, count = q.shape[1] // groups, max(len(q) * groups, 1)
    dq = q_idx.new_empty(q_idx.shape, dtype=narrow)
    # Groups that share an index key have a part of its gradient each: no order of threads shows.
    dk = k_idx.new_empty((len(k_idx), groups, k_idx.shape[2]), dtype=narrow)
    losses = q.new_zeros((len(cu_q) - 1, groups), dtype=torch.float64)
    parts = [(i, s, g) for i, s in enumerate(segments(cu_q, cu_k)) for g in range(groups)]

    def align(part: tuple[int, Segment, int]) -> None:
        """One group of one sequence."""
        at, s, g = part
        loss = losses[at, g]
        tokens = slice(s.k_start, s.k_stop)
        keys, index_keys = (
            F.pad(x.to(wide), (0, 1), value=1.0)
            for x in (k[tokens, g], k_idx[tokens, g if own else 0])
        )
        dkeys = torch.zeros_like(index_keys)
        for start, stop in list_chunks(s, block):
            rows = slice(start, stop)
            first = start - s.q_start + s.first_position
            pieces = cut_pieces(selection[rows, g], first, block, heads)
            mine = q[rows, g * heads : (g + 1) * heads].to(wide) * scale
            queries = _normalised(mine, keys, pieces)
            mine = q_idx[rows, g, None].to(wide) * index_scale  # [n, 1, Di]
            index_queries = _normalised(mine, index_keys, pieces)
            dqueries = torch.zeros_like(index_queries)
            for piece in pieces:
                key, query = index_keys[piece.tokens], piece.take(index_queries)
                teacher = exponentiate(piece.take(queries) @ keys[piece.tokens].T)
                teacher = teacher.mean(1, keepdim=True)  # [m, 1, tokens]
                told = query @ key.T
                gap = piece.hide(teacher.log().sub_(told))
                loss += teacher.flatten().dot(gap.flatten())
                change = piece.hide(exponentiate(told).sub_(teacher))
                piece.add(dqueries, change @ key)
                dkeys[piece.tokens].addmm_(change[:, 0].T, query[:, 0])
            dq[rows, g] = (dqueries[:, 0, :-1] * (index_scale / count)).to(narrow)
        dk[tokens, g] = (dkeys[:, :-1] / count).to(narrow)

    width = min(heads * q.shape[2], q_idx.shape[2])  # of the smaller of its two products
    spread = q.device.type == "cpu" and large_products(selection, block, 1, width)
    for_each(align, parts, spread=spread)
    return (losses.sum() / count).to(narrow), dq, dk if own else dk.sum(1, keepdim=True)


def _normalised(queries: Tensor, keys: Tensor, pieces: list[Piece]) -> Tensor:
    """Queries whose products with keys are logarithms of softmax weights.

    Args:
        queries: ``[n, R, D]``, with the scale in them.
        keys: ``[S, D + 1]``, with ones in the last column.
        pieces: of these queries and keys.

    Returns:
        ``[n, R, D + 1]``: the LSE, which is subtracted, rides in the product.
    """
    queries = F.pad(queries, (0, 1))
    _, lse = attend_pieces(queries, keys, keys[:, -1:], pieces)
    queries[..., -1] = -lse
    return queries
