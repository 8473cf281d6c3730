"""One point of a budget curve, with an interval on the change of perplexity as well as on recall.

:mod:`msa_suites.quality.sweep` hands out sums; an interval paired by text needs every text. Items,
scoring and attention are those of the sweep. A point is measured once for all sections that show
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from msa_suites.models.attention import MsaSettings, use_dense
from msa_suites.quality.items import Item, load_items
from msa_suites.quality.sweep import read_items, sweep_items
from msa_suites.reproduction.estimates import mean, proportion
from msa_suites.reproduction.setup import Setup, load

#: Tokens per block where a point names none: of a small model's length, so below the paper's 128.
BLOCK = MsaSettings().block
#: Name of the scorer column where attention is dense.
DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked at each point.

    Attributes:
        length: bytes of context.
        contexts: contexts with twelve facts each.
        texts: held-out texts for perplexity; none where 0.
        single: ask for the one fact of a context of ``msa_niah_single`` instead.
    """

    length: int
    contexts: int
    texts: int = 0
    single: bool = False

    def items(self) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        """Questions and texts."""
        texts = sweep_items(self.length, contexts=self.texts)[1] if self.texts else ()
        if not self.single:
            return sweep_items(self.length, contexts=self.contexts)[0], texts
        asked = load_items("msa_niah_single", profile="full")
        fitting = tuple(item for item in asked if item.length == self.length)
        return fitting[: self.contexts], texts


@dataclass(frozen=True, slots=True)
class Point:
    """Answers and nats per byte, item by item, in the order of the workload."""

    hits: tuple[bool, ...]
    nats: tuple[float, ...]


def curve(
    setup: Setup, workload: Workload, points: list[tuple[str, MsaSettings]]
) -> dict[str, Any]:
    """The dense row, and a row for each named setting, in that order, as plain data."""
    dense = _point(setup, workload, None)
    rows = []
    for number, (name, settings) in enumerate(points, start=1):
        setup.say(f"{name}, k {settings.topk}, {workload.length} bytes ({number}/{len(points)})")
        point = _point(setup, workload, replace(settings, seed=setup.seed))
        rows.append(_row(setup, workload, name, settings, point, dense))
    return {
        "length": workload.length,
        "block": BLOCK,
        "contexts": workload.contexts,
        "texts": workload.texts,
        "dense": _row(setup, workload, DENSE, None, dense, dense),
        "rows": rows,
    }


@lru_cache(maxsize=256)
def _point(setup: Setup, workload: Workload, settings: MsaSettings | None) -> Point:
    model, tokenizer = load(setup)
    items = workload.items()
    hits, likelihoods = read_items(model, tokenizer, items, settings)
    use_dense(model)
    nats = (-one / len(item.answer) for one, item in zip(likelihoods, items[1], strict=True))
    return Point(hits=tuple(hits), nats=tuple(nats))


def _row(
    setup: Setup,
    workload: Workload,
    name: str,
    settings: MsaSettings | None,
    point: Point,
    dense: Point,
) -> dict[str, Any]:
    facts, texts = workload.items()
    row: dict[str, Any] = {
        "name": name,
        "scorer": settings.scorer if settings else DENSE,
        "topk": settings.topk if settings else 0,
        "sink_blocks": settings.sink_blocks if settings else 0,
        "recall": proportion(point.hits, [item.cluster for item in facts], seed=setup.seed),
    }
    if texts:
        more = [nats - before for nats, before in zip(point.nats, dense.nats, strict=True)]
        found = mean(more, [item.cluster for item in texts], seed=setup.seed)
        row["perplexity"] = math.exp(sum(point.nats) / len(point.nats))
        row["change"] = {
            key: math.expm1(value) if key != "n" and value is not None else value
            for key, value in found.items()
        }
    return row
