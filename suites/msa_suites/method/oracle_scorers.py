"""Block scorers in float64, a query at a time, from their definitions and apart from msa."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: From one query ``[Di]`` (heads ``[R, D]`` for the oracle), the keys ``[n, D]`` that it sees of
#: all blocks, and the block size, to one score a block.
_Rule = Callable[[Tensor, Tensor, int, float], list[Tensor]]


def _pooled(pool: Callable[[Tensor], Tensor]) -> _Rule:
    def rule(query: Tensor, keys: Tensor, block: int, scale: float) -> list[Tensor]:
        return [pool(part @ query * scale) for part in keys.split(block)]

    return rule


def _quest(query: Tensor, keys: Tensor, block: int, scale: float) -> list[Tensor]:
    """Per channel the better of the block's two extremes (Quest, equation 1)."""
    scaled = query * scale
    return [
        torch.maximum(scaled * part.amin(0), scaled * part.amax(0)).sum()
        for part in keys.split(block)
    ]


def _recent(query: Tensor, keys: Tensor, block: int, scale: float) -> list[Tensor]:
    del query, scale
    return [torch.tensor(float(b)) for b in range(len(keys.split(block)))]


def _mass(query: Tensor, keys: Tensor, block: int, scale: float) -> list[Tensor]:
    """Softmax mass, the mean over the heads of the group."""
    weight = (query @ keys.T * scale).softmax(-1).mean(0)
    return [part.sum() for part in weight.split(block)]


RULES: dict[str, _Rule] = {
    "max": _pooled(torch.amax),
    "mean": _pooled(torch.mean),
    "quest": _quest,
    "recent": _recent,
    "oracle": _mass,
}


def block_scores(name: str, q: Tensor, k: Tensor, *, block: int, scale: float) -> Tensor:
    """Float64 ``[Tq, Hkv, NB]`` of one sequence whose queries are its last ones.

    Args:
        name: of RULES.
        q: ``[Tq, Hkv, Di]``; ``[Tq, Hq, D]`` for the oracle.
        k: ``[T, Hkv, Di]``.
        block: tokens per block.
        scale: factor on the scores.
    """
    groups = k.shape[1]
    scores = torch.full((len(q), groups, -(-len(k) // block)), -torch.inf, dtype=torch.float64)
    for row, query in enumerate(q.double().unflatten(1, (groups, -1))):
        seen = len(k) - len(q) + row + 1
        for g in range(groups):
            heads = query[g] if name == "oracle" else query[g, 0]
            found = RULES[name](heads, k[:seen, g].double(), block, scale)
            scores[row, g, : len(found)] = torch.stack(found).double()
    return scores
