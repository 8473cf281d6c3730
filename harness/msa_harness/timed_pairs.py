"""The interval of a timed series over its pairs of processes, and the numbers that it shows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from msa_harness.gate import Gate
from msa_harness.samples import log_ratio
from msa_harness.series import Mode, Series
from msa_harness.statistics import Interval, detectable, log_ratio_interval, welch_log_interval
from msa_harness.verdicts import More, SeriesVerdict, Verdict

#: Begins the items of the fresh pairs that confirm a slowdown.
CONFIRM: Final = "confirm"


def _items(series: Series, *, confirm: bool) -> list[str]:
    return [item for item in series.paired() if item.startswith(CONFIRM) is confirm]


def pair_interval(series: Series, *, confirm: bool, mode: Mode) -> Interval | None:
    """Interval of the log of the slowdown; None with fewer than two pairs."""
    base, head = series.values("base"), series.values("head")
    confidence = series.gate.confidence
    if mode == "unpaired":
        if confirm or min(len(base), len(head)) < 2:
            return None
        return welch_log_interval(list(base.values()), list(head.values()), confidence=confidence)
    ratios = list(pair_ratios(series, confirm=confirm).values())
    return log_ratio_interval(ratios, confidence=confidence) if len(ratios) >= 2 else None


def pair_ratios(series: Series, *, confirm: bool) -> dict[str, float]:
    """Log ratio of each pair of processes by its item, in the order of the items."""
    items = sorted(_items(series, confirm=confirm))
    return {item: log_ratio(series.base[item], series.head[item]) for item in items}


def not_positive(series: Series) -> SeriesVerdict | None:
    """ERROR where a time is not positive; None where all are."""
    values = [*series.values("base").values(), *series.values("head").values()]
    values += [seconds for sample in series.all() for seconds in sample.raw]
    if min(values) > 0:
        return None
    return series.verdict(Verdict.ERROR, f"wanted positive seconds, got {min(values)}")


def by_bounds(interval: Interval, gate: Gate) -> Verdict:
    """IMPROVED, PASS or INCONCLUSIVE: what the upper bound of the slowdown says."""
    high = interval.upper(gate.excludes)
    if high < -math.log1p(gate.threshold):
        return Verdict.IMPROVED
    return Verdict.PASS if high < math.log1p(gate.margin) else Verdict.INCONCLUSIVE


def with_numbers(
    series: Series, interval: Interval, verdict: Verdict, note: str, more: More | None = None
) -> SeriesVerdict:
    """A verdict with the effect, its bounds and what the gate could have found."""
    gate = series.gate
    mde = detectable(
        interval.se,
        interval.df,
        threshold=math.log1p(gate.threshold),
        confidence=gate.confidence,
    )
    # Geometric means over processes: near the effect, which compares calls made side by side.
    base, head = (_geometric(series.values(subject).values()) for subject in ("base", "head"))
    high = as_fraction(interval.upper(gate.excludes))
    if verdict is Verdict.PASS:
        high = max(high, gate.resolution)
    return replace(
        series.verdict(verdict, note),
        base=base,
        head=head,
        effect=math.expm1(interval.estimate),
        low=as_fraction(interval.low),
        high=high,
        n=interval.n,
        mde=as_fraction(mde),
        more=more,
    )


def as_fraction(log: float) -> float:
    """A log ratio as a fraction of base."""
    # With two wild pairs a bound leaves the range of a float; it says "unknown" long before.
    return math.expm1(min(log, 700.0))


def _geometric(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
