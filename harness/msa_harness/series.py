"""Samples gathered by series, and the questions every method asks first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from msa_harness.gate import Gate
from msa_harness.samples import ERROR, INVALID, WRONG, Sample
from msa_harness.verdicts import SeriesVerdict, Verdict

Mode = Literal["paired", "unpaired", "alone"]
Side = Literal["base", "head"]
_SIDES: tuple[Side, Side] = ("head", "base")


@dataclass(slots=True)
class Series:
    """All samples of one series, by subject and item."""

    name: str
    suite: str
    gate: Gate
    base: dict[str, Sample] = field(default_factory=dict)
    head: dict[str, Sample] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Unit of its samples; several are joined by a comma, and are an error."""
        return ", ".join(sorted({sample.unit for sample in self.all()}))

    def all(self) -> list[Sample]:
        """Samples of both subjects."""
        return [*self.base.values(), *self.head.values()]

    def values(self, subject: Side) -> dict[str, float]:
        """Item to value, missing ones left out."""
        samples = self.base if subject == "base" else self.head
        return {item: s.value for item, s in samples.items() if s.value is not None}

    def paired(self) -> list[str]:
        """Items that both subjects have a value for, in the order of base."""
        head = self.values("head")
        return [item for item in self.values("base") if item in head]

    def clusters(self, items: Iterable[str]) -> list[str]:
        """Cluster of each item."""
        return [self.base[item].cluster or self.head[item].cluster for item in items]

    def flagged(self, subject: Side, prefix: str) -> list[Sample]:
        """Samples of a subject whose detail begins with a prefix."""
        samples = self.base if subject == "base" else self.head
        return [s for s in samples.values() if s.value is None and s.detail.startswith(prefix)]

    def verdict(self, verdict: Verdict, note: str = "", *, method: str = "") -> SeriesVerdict:
        """A verdict on this series with everything but the numbers filled in."""
        repro = next((s.repro for s in reversed(self.all()) if s.repro), "")
        return SeriesVerdict(
            name=self.name,
            suite=self.suite,
            unit=self.unit,
            direction=self.gate.direction,
            verdict=verdict,
            base=mean(self.values("base").values()),
            head=mean(self.values("head").values()),
            threshold=self.gate.threshold,
            margin=self.gate.margin or None,
            confidence=self.gate.confidence,
            pass_confidence=self.gate.excludes,
            n=len(self.values("head") or self.values("base")),
            method=method or self.gate.method,
            note=note,
            repro=repro,
        )


def mean(values: Iterable[float]) -> float | None:
    """Arithmetic mean, None of nothing."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None


def gather(samples: Iterable[Sample], gate_for: dict[str, Gate]) -> dict[str, Series]:
    """Samples by series, in order of appearance; series without a gate are left out."""
    found: dict[str, Series] = {}
    for sample in samples:
        gate = gate_for.get(sample.series)
        if gate is None:
            continue
        series = found.setdefault(sample.series, Series(sample.series, sample.suite, gate))
        side = series.base if sample.subject == "base" else series.head
        side[sample.item] = sample
    return found


def shown(samples: Iterable[Sample], most: int = 3) -> str:
    """The first few samples with their reasons, as text."""
    rows = list(samples)
    text = "; ".join(f"{s.item}: {s.detail or 'no reason given'}" for s in rows[:most])
    return text + (f"; and {len(rows) - most} more" if len(rows) > most else "")


def screen(series: Series, mode: Mode) -> SeriesVerdict | None:
    """The verdict on a series that cannot be judged by numbers; None where it can."""
    gate, verdict = series.gate, series.verdict
    if "," in series.unit or (gate.unit and series.unit != gate.unit):
        wanted = gate.unit or "one unit"
        return verdict(Verdict.ERROR, f"unit: wanted {wanted}, got {series.unit}")
    if wrong := series.flagged("head", WRONG):
        also = "; so does base" if series.flagged("base", WRONG) else ""
        return verdict(Verdict.REGRESSION, f"head answers wrongly: {shown(wrong)}{also}")
    for subject in _SIDES:
        if broken := series.flagged(subject, ERROR):
            return verdict(Verdict.ERROR, f"{subject} could not be measured: {shown(broken)}")
    for subject in _SIDES:
        if void := series.flagged(subject, INVALID):
            return verdict(Verdict.INVALID, f"{subject}: {shown(void)}")
    if wrong := series.flagged("base", WRONG):
        note = f"base answers wrongly, nothing to compare with: {shown(wrong)}"
        return verdict(Verdict.INVALID, note)
    return _presence(series, mode)


def _presence(series: Series, mode: Mode) -> SeriesVerdict | None:
    base, head = bool(series.values("base")), bool(series.values("head"))
    if head and (base or series.gate.method == "hard" or mode == "alone"):
        return None
    if head:
        return series.verdict(Verdict.NEW, "base has no such series")
    if base:
        why = f": {shown(series.head.values(), 1)}" if series.head else ""
        return series.verdict(Verdict.REMOVED, f"head has no value{why}")
    if all(sample.detail for sample in series.all()):
        note = f"skipped: {shown(series.all(), 1)}"
        return series.verdict(Verdict.NO_SIGNAL, note)
    return series.verdict(Verdict.ERROR, "nothing ran, and no reason is recorded")


def lost_items(series: Series) -> SeriesVerdict | None:
    """INVALID where head lacks values that base has: what is missing cannot be compared."""
    head = series.values("head")
    lost = [item for item in series.values("base") if item not in head]
    if not lost:
        return None
    samples = [series.head.get(item, series.base[item]) for item in lost]
    note = f"head has no value for {len(lost)} of {len(series.values('base'))} items: "
    return series.verdict(Verdict.INVALID, note + shown(samples))
