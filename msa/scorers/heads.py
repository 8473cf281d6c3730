"""What scorers share that look at every query head."""

from __future__ import annotations

from torch import Tensor

from msa.checks import require_groups, require_packing, require_positive, require_tensor
from msa.scorers.tiles import Tile


def check_heads(q: Tensor, k: Tensor, cu_q: Tensor, cu_k: Tensor, block: int) -> None:
    """Refuse what does not belong together.

    Args:
        q: every query head, ``[Tq, Hq, D]``.
        k: keys of the main branch, ``[Tk, Hkv, D]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.

    Raises:
        TypeError, ValueError: the argument, what was wanted and what came.
    """
    require_tensor("q", q, ("Tq", "Hq", "D"))
    require_tensor("k", k, ("Tk", "Hkv", q.shape[2]), like=q)
    require_groups(q.shape[1], k.shape[1])
    require_positive("block", block)
    require_packing(cu_q, cu_k, len(q), len(k))


def grouped_queries(q: Tensor, tile: Tile, groups: int) -> Tensor:
    """The rows of a tile by the group of their head, float32 ``[G, R * rows, D]``."""
    queries = q[tile.rows].float().reshape(len(tile.positions), groups, -1, q.shape[2])
    return queries.permute(1, 2, 0, 3).flatten(1, 2)
