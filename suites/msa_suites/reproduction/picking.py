"""What the free slots of one layer went to: first block, diagonal, stripes, and overlaps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

#: Blocks before the query's own that count as the diagonal.
NEAR = 2
#: A key block is a stripe where this share of the later queries keeps it.
STRIPE = 0.5


@dataclass(frozen=True, slots=True)
class LayerPicks:
    """Of one layer on one text, over the queries that have more blocks than slots.

    Attributes:
        groups: for each group, shares: ``first``: queries that chose the first block; of the free
            slots, those that went to the :data:`NEAR` blocks before the query's own
            (``diagonal``), to key blocks which at least :data:`STRIPE` of the later queries keep
            (``stripes``), or to distances that as many queries keep (``bands``), the last two
            without first block and diagonal; ``chance_first`` and ``chance_diagonal``: what chance
            would do; ``reach``: mean distance of a choice, as a share of the distance there is.
        distances: mean Jaccard distances of two sets of free choices: ``groups``: two groups, one
            query (absent where there is one group); ``neighbours``: one group, a query and the
            next in its block; ``chance``: two random sets of the same sizes.
    """

    groups: tuple[dict[str, float], ...]
    distances: dict[str, float]


def picks(record: Any, *, seed: int) -> LayerPicks:  # noqa: ANN401 - a msa.recording.LayerRecord
    """Measure a record of a call with one sequence, whose queries are all there."""
    from msa.recall import selected_blocks

    own = record.positions // record.block  # [T]
    columns = int(own.max()) + 1
    held = selected_blocks(record.selection, columns)  # [T, G, NB]
    ids = torch.arange(columns, device=held.device)
    held = held & (ids != own[:, None])[:, None]
    choosing = own >= record.selection.shape[-1]
    free, own = held[choosing], own[choosing]
    near = (ids >= own[:, None] - NEAR) & (ids < own[:, None])  # [Q, NB]
    groups = tuple(_shares(free[:, g], own, near, ids) for g in range(free.shape[1]))
    same_block = own[1:] == own[:-1]
    generator = torch.Generator().manual_seed(seed)
    distances = {
        "neighbours": float(jaccard(free[1:], free[:-1])[same_block].mean()),
        "chance": float(
            jaccard(_random_like(free, own, generator), _random_like(free, own, generator)).mean()
        ),
    }
    between = [jaccard(free[:, a], free[:, b]) for a, b in combinations(range(len(groups)), 2)]
    if between:
        distances["groups"] = float(torch.stack(between).mean())
    return LayerPicks(groups, distances)


def jaccard(a: Tensor, b: Tensor) -> Tensor:
    """1 - |a and b| / |a or b| of sets as bool ``[..., NB]``; of two empty sets 0."""
    union = (a | b).sum(-1)
    return torch.where(union > 0, 1 - (a & b).sum(-1).double() / union.clamp(min=1), 0.0)


def _shares(free: Tensor, own: Tensor, near: Tensor, ids: Tensor) -> dict[str, float]:
    """One group: ``free`` bool ``[Q, NB]``, the chosen blocks without the local one."""
    chosen = free.sum().clamp(min=1)
    far = free & ~near
    far[:, 0] = False
    # Of the queries for which a block is neither local nor near, the share that keeps it.
    later = (ids < own[:, None] - NEAR).sum(0).clamp(min=1)
    stripe = far.sum(0) / later >= STRIPE
    distance = (own[:, None] - ids).clamp(min=0) / own[:, None]
    return {
        "first": float(free[:, 0].double().mean()),
        "diagonal": float((free & near).sum() / chosen),
        "chance_diagonal": float((NEAR / own.double()).mean()),
        "chance_first": float((free.sum(-1) / own).mean()),
        "stripes": float((far & stripe).sum() / chosen),
        "bands": _bands(far, own, ids) / float(chosen),
        "reach": float((distance * free).sum() / chosen),
    }


def _bands(far: Tensor, own: Tensor, ids: Tensor) -> float:
    """How many of the ``far`` choices lie at a distance that most queries with it keep."""
    # Row by row, the columns turned so that column d is the block d before the query's own.
    back = own[:, None] - ids
    turned = far.gather(1, back.clamp(min=0)) & (back >= 0)
    able = (ids[None] < own[:, None]).sum(0).clamp(min=1)
    kept = turned.sum(0)
    return float(kept[kept / able >= STRIPE].sum())


def _random_like(free: Tensor, own: Tensor, generator: torch.Generator) -> Tensor:
    """Random sets of the sizes of ``free``, from the blocks before each query's own."""
    draws = torch.rand(free.shape, generator=generator).to(free.device)
    ids = torch.arange(free.shape[-1], device=free.device)
    draws = draws.masked_fill((ids >= own[:, None])[:, None], -1.0)
    rank = draws.argsort(-1, descending=True).argsort(-1)
    return rank < free.sum(-1, keepdim=True)
