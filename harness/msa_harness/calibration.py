"""What the timed gate's verdicts are worth: simulated gates over pairs that were really measured.

Base and head of the pairs are the same code. A simulated gate draws pairs of processes with
replacement, all series of a pair together, and goes through the very judge and the very requests
for more pairs and for confirmation as a real one. Which process of a pair is head is drawn too:
nothing else than chance made it so, and the few real pairs may lean to one side. Slower code is
simulated by multiplying head's times; what it costs to detect depends on the noise, which is real.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from statistics import median
from typing import Any

from statsmodels.stats.proportion import proportion_confint

from msa_harness.blocks import Block, first_blocks, more_blocks
from msa_harness.gates import GateTable
from msa_harness.judge import judge
from msa_harness.samples import Sample
from msa_harness.settling import settled
from msa_harness.verdicts import Verdict

_SUITE = "speed"
#: One real pair of processes: its samples of base and head by series.
Pair = Mapping[str, tuple[Sample, Sample]]


@dataclass
class Tally:
    """Verdicts of simulated gates of one kind.

    Attributes:
        slowdown: of the slowed series, a fraction; 0 for identical code.
        series: which was slowed; empty for none.
        verdicts: of the runs.
        own: of the slowed series.
        flagged: series that were called a REGRESSION without being slowed.
        excluded: how often it passed although its interval excluded the slowdown.
        mde: smallest slowdowns that each gate said it would find, by series.
    """

    slowdown: float
    series: str = ""
    verdicts: Counter[str] = field(default_factory=Counter)
    own: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    excluded: int = 0
    mde: dict[str, list[float]] = field(default_factory=dict)

    @property
    def gates(self) -> int:
        """How many gates were simulated."""
        return self.verdicts.total()

    def share(self, verdict: str, *, own: bool = False) -> tuple[float, float, float]:
        """Share of the gates with a verdict, and its exact 95 % interval (Clopper-Pearson)."""
        counted = self.own if own else self.verdicts
        total = max(counted.total(), 1)
        low, high = proportion_confint(counted[verdict], total, alpha=0.05, method="beta")
        return counted[verdict] / total, float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "slowdown": self.slowdown,
            "series": self.series,
            "gates": self.gates,
            "verdicts": dict(self.verdicts),
            "own": dict(self.own),
            "flagged": dict(self.flagged),
            "passed_without_saying": self.excluded,
            "mde": {name: median(values) for name, values in self.mde.items()},
        }


def pairs_of(samples: Iterable[Sample]) -> list[Pair]:
    """The pairs of a recorded self-test in which every series was timed."""
    found: dict[str, dict[str, dict[str, Sample]]] = {}
    for sample in samples:
        if sample.suite == _SUITE and sample.item.startswith("pair-") and sample.value is not None:
            pair = found.setdefault(sample.item, {})
            pair.setdefault(sample.series, {})[sample.subject] = sample
    pairs: list[Pair] = [
        {
            name: (sides["base"], sides["head"])
            for name, sides in pair.items()
            if {"base", "head"} <= set(sides)
        }
        for _, pair in sorted(found.items())
    ]
    everything = {name for pair in pairs for name in pair}
    return [pair for pair in pairs if set(pair) == everything]


def timed_series(pairs: Sequence[Pair], gates: GateTable) -> list[str]:
    """Series of the pairs that a timed gate judges, those that every pair has."""
    everywhere = set.intersection(*(set(pair) for pair in pairs)) if pairs else set()
    return [
        name
        for name in pairs[0]
        if name in everywhere and (gate := gates.gate_for(name)) and gate.method == "speed"
    ]


def simulate(
    pairs: Sequence[Pair],
    gates: GateTable,
    *,
    count: int,
    slowdown: float = 0.0,
    series: str = "",
    seed: int = 0,
) -> Tally:
    """Simulate gates.

    Args:
        pairs: real ones, at least two.
        gates: the gates that judge.
        count: how many gates.
        slowdown: of head, a fraction.
        series: the series that is slowed; empty for none.
        seed: of the drawing.

    Raises:
        ValueError: fewer than two pairs, or a series that they do not have.
    """
    if len(pairs) < 2:
        raise ValueError(f"pairs: wanted at least two real pairs, got {len(pairs)}")
    names = timed_series(pairs, gates)
    if series and series not in names:
        raise ValueError(f"series: wanted one of {', '.join(names)}, got {series!r}")
    draw = random.Random(seed)
    tally = Tally(slowdown, series)
    for _ in range(count):
        _one_gate(pairs, gates, names, draw, tally)
    return tally


def _one_gate(
    pairs: Sequence[Pair], gates: GateTable, names: Sequence[str], draw: random.Random, tally: Tally
) -> None:
    samples: list[Sample] = []

    def measure(blocks: Iterable[Block]) -> bool:
        before = len(samples)
        for block in blocks:
            pair = draw.choice(pairs)
            order = draw.choice((1, -1))
            for name, sides in pair.items():
                gate = gates.gate_for(name)
                control = gate is None or gate.method != "speed"
                if control or name in block.names:
                    factor = 1 + tally.slowdown if name == tally.series else 1.0
                    samples.extend(_moved(sides[::order], block.item, factor))
        return len(samples) > before

    def add(wanted: Mapping[str, str]) -> bool:
        done = frozenset(sample.key for sample in samples)
        return measure(more_blocks(wanted, done, gates))

    measure(first_blocks(names, gates))
    outcome = settled(lambda: judge(samples, gates, date.max, mode="paired", suites=[_SUITE]), add)
    tally.verdicts[outcome.verdict.value] += 1
    for one in outcome.series:
        if one.mde is not None and one.name in names:
            tally.mde.setdefault(one.name, []).append(one.mde)
        if one.name == tally.series:
            tally.own[one.verdict.value] += 1
            silent = one.high is not None and one.high < tally.slowdown
            tally.excluded += silent and one.verdict in (Verdict.PASS, Verdict.IMPROVED)
        elif one.verdict is Verdict.REGRESSION:
            tally.flagged[one.name] += 1


def _moved(sides: Sequence[Sample], item: str, factor: float) -> list[Sample]:
    """A real pair as a pair of the gate: the first is base, the second head, and slower."""

    def as_side(one: Sample, subject: str, factor: float) -> Sample:
        value = None if one.value is None else one.value * factor
        raw = tuple(seconds * factor for seconds in one.raw)
        return replace(one, subject=subject, item=item, cluster=item, value=value, raw=raw)

    return [as_side(sides[0], "base", 1.0), as_side(sides[1], "head", factor)]


def simulate_recall(
    samples: Iterable[Sample], gates: GateTable, *, series: str, loss: float, count: int, seed: int
) -> Tally:
    """Gates on a head that lost some of what it recalled.

    Args:
        samples: of a recorded run, the series and its dense reference among them.
        gates: the gates that judge.
        series: of recall, 1 for each item that was recalled.
        loss: share of the items that is lost, drawn anew for every gate.
        count: how many gates.
        seed: of the drawing.

    Raises:
        ValueError: the run has no such series.
    """
    own = [one for one in samples if one.series in (series, f"{series}/dense")]
    right = [one for one in own if one.series == series and one.subject == "head"]
    if not right:
        raise ValueError(f"series: wanted one of the run, got {series!r}")
    kept = [one for one in own if one.series != series]
    draw, tally = random.Random(seed), Tally(loss, series)
    for _ in range(count):
        lost = set(draw.sample(range(len(right)), round(loss * len(right))))
        head = [replace(one, value=0.0) if i in lost else one for i, one in enumerate(right)]
        base = [replace(one, subject="base") for one in right]
        outcome = judge([*kept, *base, *head], gates, date.max, mode="paired")
        tally.verdicts[outcome.verdict.value] += 1
        tally.own.update(one.verdict.value for one in outcome.series if one.name == series)
    return tally
