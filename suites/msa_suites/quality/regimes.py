"""Attention mass that a selector keeps on random tensors, in two regimes; no model needed.

Where attention is concentrated, as in trained models, few blocks hold nearly all of it and the
selector finds them. On white noise no choice of blocks holds much, and the selector is little
better than chance. Real attention lies between the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

REGIMES = ("concentrated", "white_noise")
#: The paper's block, its budget of 16 blocks, and twice that.
PAPER_BLOCK, PAPER_BUDGETS = 128, (16, 32)
#: Tokens that stay on one topic where attention is concentrated; no multiple of a block begins it.
TOPIC = 96


@dataclass(frozen=True, slots=True)
class MassRecall:
    """Means over the queries of one drawing.

    Attributes:
        regime: one of :data:`REGIMES`.
        topk: blocks kept.
        seed: of the drawing.
        mass: share of the true attention mass in the selected blocks.
        uniform: the same for blocks chosen at random.
        error: relative L2 error of the sparse output against dense attention.
    """

    regime: str
    topk: int
    seed: int
    mass: float
    uniform: float
    error: float


def draw_attention(
    regime: str, *, length: int, dim: int, seed: int, queries: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One head: queries float32 ``[queries, 1, dim]``, keys and values ``[length, 1, dim]``.

    ``white_noise``: independent normal numbers. ``concentrated``: keys keep to a topic for a
    while, as text does, and each query is twice one earlier key with noise on it.

    Raises:
        ValueError: unknown regime.
    """
    if regime not in REGIMES:
        raise ValueError(f"regime: wanted one of {', '.join(REGIMES)}, got {regime!r}")
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    values = normal(length, 1, dim)
    if regime == "white_noise":
        return normal(queries, 1, dim), normal(length, 1, dim), values
    topics = normal(-(-length // TOPIC), dim).repeat_interleave(TOPIC, 0)[:length]
    keys = (0.8 * topics + 0.6 * normal(length, dim))[:, None]
    wanted = torch.randint(length - queries, (queries,), generator=generator)
    return 2.0 * keys[wanted] + 0.5 * normal(queries, 1, dim), keys, values


def attend_densely(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """Causal attention of the last positions, in float64: ``[queries, 1, dim]``."""
    logits = torch.einsum("qhd,khd->hqk", q.double(), k.double()) * scale
    hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
    weights = logits.masked_fill(hidden.to(q.device), -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v.double())


def mass_on_random_tensors(
    implementation: str = "torch",
    *,
    regimes: Sequence[str] = REGIMES,
    budgets: Sequence[int] = PAPER_BUDGETS,
    block: int = PAPER_BLOCK,
    length: int = 8192,
    dim: int = 64,
    queries: int = 32,
    seeds: Sequence[int] = tuple(range(8)),
    device: str = "cpu",
) -> Iterator[MassRecall]:
    """What the selection keeps for the last queries of a context, drawing by drawing.

    Args:
        implementation: whose scores, selection and attention are measured.
        regimes: of :func:`draw_attention`.
        budgets: blocks kept.
        block: tokens per block.
        length: tokens of context.
        dim: head dim.
        queries: how many of the last positions ask.
        seeds: one drawing each.
        device: a torch device; the numbers are drawn on the CPU.
    """
    from msa.packing import cumulative
    from msa.recall import mass_recall
    from msa.scorers import find_scorer
    from msa_kernels import load

    operations: Any = load(implementation)
    where: dict[str, Any] = {
        "cu_q": cumulative([queries]).to(device),
        "cu_k": cumulative([length]).to(device),
        "block": block,
    }
    scale = dim**-0.5
    for regime in regimes:
        for seed in seeds:
            drawn = draw_attention(regime, length=length, dim=dim, seed=seed, queries=queries)
            q, k, v = (tensor.to(device) for tensor in drawn)
            dense = attend_densely(q, k, v, scale=scale)
            mass = find_scorer("oracle")(q, k, **where, scale=scale)
            scores = operations.block_scores(q, k, **where, scale=scale)
            chance = find_scorer("random")(q, k, **where, scale=scale, seed=seed)
            for topk in budgets:
                kept = operations.select_blocks(scores, **where, topk=topk)
                blind = operations.select_blocks(chance, **where, topk=topk)
                out = operations.sparse_attention(q, k, v, kept, **where, scale=scale)[0]
                yield MassRecall(
                    regime=regime,
                    topk=topk,
                    seed=seed,
                    mass=float(mass_recall(mass, kept).mean()),
                    uniform=float(mass_recall(mass, blind).mean()),
                    error=float((out - dense).norm() / dense.norm()),
                )
