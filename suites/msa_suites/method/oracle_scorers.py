"""Block scorers in float64, a query at a time, from their definitions and apart from msa."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: From one query ``[Di]`` (heads ``[R, D]`` for those of ALL_HEADS), the keys ``[n, D]`` that it
#: sees of all blocks, the block size and the scale, to one score a block.
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


def _windows(query: Tensor, keys: Tensor, block: int, scale: float) -> list[tuple[range, float]]:
    """Tokens and mass of every window of half a block that is past; one begins at each quarter."""
    length, stride = max(block // 2, 1), max(block // 4, 1)
    spans = [range(s, s + length) for s in range(0, len(keys) - length + 1, stride)]
    if not spans:
        return []
    means = torch.stack([keys[list(span)].mean(0) for span in spans])
    mass = (query @ means.T * scale).softmax(-1).sum(0)
    return list(zip(spans, mass.tolist(), strict=True))


def _infllm_v2(query: Tensor, keys: Tensor, block: int, scale: float) -> list[Tensor]:
    """The largest window with a token in the block."""
    best = [0.0] * len(keys.split(block))
    for span, mass in _windows(query, keys, block, scale):
        for b in {t // block for t in span}:
            best[b] = max(best[b], mass)
    return [torch.tensor(one) for one in best]


def _nsa_standin(query: Tensor, keys: Tensor, block: int, scale: float) -> list[Tensor]:
    """Every window gives its mass to its tokens in equal parts."""
    token = torch.zeros(len(keys), dtype=torch.float64)
    for span, mass in _windows(query, keys, block, scale):
        token[list(span)] += mass / len(span)
    return [part.sum() for part in token.split(block)]


def _dsa_standin(queries: Tensor, keys: Tensor, block: int, scale: float) -> list[Tensor]:
    """The best token, each scored by all heads ``[G, R, D]`` on the keys ``[n, G, D]``."""
    every = torch.stack([query @ keys[:, g].T for g, query in enumerate(queries)]) * scale
    token = every.where(every > 0, 0.0).flatten(0, 1).mean(0)
    return [part.max() for part in token.split(block)]


RULES: dict[str, _Rule] = {
    "max": _pooled(torch.amax),
    "mean": _pooled(torch.mean),
    "quest": _quest,
    "recent": _recent,
    "oracle": _mass,
    "infllm_v2": _infllm_v2,
    "nsa_standin": _nsa_standin,
    "dsa_standin": _dsa_standin,
}
#: Rules that look at every query head, and those of them that look at all groups at once.
ALL_HEADS = frozenset({"oracle", "infllm_v2", "nsa_standin", "dsa_standin"})
ALL_GROUPS = frozenset({"dsa_standin"})


def block_scores(name: str, q: Tensor, k: Tensor, *, block: int, scale: float) -> Tensor:
    """Float64 ``[Tq, Hkv, NB]`` of one sequence whose queries are its last ones.

    Args:
        name: of RULES.
        q: ``[Tq, Hkv, Di]``; ``[Tq, Hq, D]`` for those of ALL_HEADS.
        k: ``[T, Hkv, Di]``.
        block: tokens per block.
        scale: factor on the scores.
    """
    groups = k.shape[1]
    scores = torch.full((len(q), groups, -(-len(k) // block)), -torch.inf, dtype=torch.float64)
    for row, query in enumerate(q.double().unflatten(1, (groups, -1))):
        seen = len(k) - len(q) + row + 1
        for g in range(groups):
            heads = query[g] if name in ALL_HEADS else query[g, 0]
            keys = k[:seen, g].double()
            if name in ALL_GROUPS:
                heads, keys = query, k[:seen].double()
            found = RULES[name](heads, keys, block, scale)
            scores[row, g, : len(found)] = torch.stack(found).double()
    return scores
