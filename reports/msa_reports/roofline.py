"""Rooflines: operations per second that were attained, under what the machine allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from msa_harness.records import Sample
from msa_reports import svg
from msa_reports.cost import Cost, Peaks, Work
from msa_reports.figures import Figure, figure
from msa_reports.scale import Axis
from msa_reports.shapes import MARKS
from msa_reports.text import clean, plural, prefixed, seconds, share

_NAMES = {"dense": "dense prefill", "prefill": "MSA prefill", "decode": "MSA decode"}
_MOST_LINES = len(MARKS) - 1


@dataclass(frozen=True, slots=True)
class Point:
    """One timed call.

    Attributes:
        line: what it is, for the legend.
        work: what it has to do.
        seconds: the median of head where head was measured, else of base.
    """

    line: str
    work: Work
    seconds: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.work.flops / self.work.bytes

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.work.flops / self.seconds


def points(samples: Iterable[Sample], work: Iterable[Work]) -> list[Point]:
    """Return every call of ``work`` that was timed, one point an overlap."""
    by_series: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.unit == "s" and sample.value is not None and sample.value > 0:
            by_series[sample.series][sample.subject].append(sample.value)
    found = []
    for one in work:
        if one.what not in _NAMES:
            continue
        suffix = "" if one.dtype == "float32" else f"-{one.dtype}"
        name = f"speed/{one.what}{suffix}/{one.length}"
        for series, by_subject in by_series.items():
            if series != name and not series.startswith(name + "/"):
                continue
            overlap = clean(series[len(name) + 1 :], limit=40)
            line = _NAMES[one.what]
            line = f"{line}, {overlap} overlap" if overlap else line
            found.append(Point(line, one, median(by_subject.get("head") or by_subject["base"])))
    return found


def roofline_figures(samples: Iterable[Sample], cost: Cost) -> Iterator[Figure]:
    """Yield a roofline for every dtype that was timed and whose ceiling was measured."""
    if cost.peaks is None:
        return
    by_dtype: dict[str, list[Point]] = defaultdict(list)
    for point in points(samples, cost.work):
        by_dtype[point.work.dtype].append(point)
    for index, (dtype, found) in enumerate(by_dtype.items()):
        if dtype in cost.peaks.flops_per_second:
            yield _figure(dtype, found, cost.peaks, name=f"roofline-{index}")


def _figure(dtype: str, found: list[Point], peaks: Peaks, *, name: str) -> Figure:
    peak, speed = peaks.flops_per_second[dtype], peaks.bytes_per_second
    ridge = peak / speed
    reach = [ridge, *(point.intensity for point in found)]
    left, right = min(reach) / 2, max(reach) * 2
    roof = svg.Line("roof", ((left, left * speed), (ridge, peak), (right, peak)), 6, marks=False)
    found = sorted(found, key=lambda p: (list(_NAMES).index(p.work.what), p.line, p.work.length))
    lines = list(dict.fromkeys(point.line for point in found))[:_MOST_LINES]
    # A shared machine may have been busier while the roof was measured than while a call was timed.
    low = any(point.rate > peak for point in found)
    drawn = (
        svg.Line(
            line,
            tuple(sorted((p.intensity, p.rate) for p in found if p.line == line)),
            slot if slot < roof.slot else slot + 1,
        )
        for slot, line in enumerate(lines)
    )
    shown = clean(dtype, limit=40)
    chart = svg.Chart(
        f"Roofline, {shown}",
        f"Operations per second of {plural(len(found), 'timed call')} by operations per byte; "
        f"the roof is {prefixed(speed, 'B/s')} up to {ridge:.3g} operations per byte, then "
        f"{prefixed(peak, 'FLOP/s')}.",
        Axis("FLOP per byte (log scale)", base=10),
        Axis("GFLOP/s (log scale)", base=10, show=lambda v: f"{v / 1e9:g}"),
        (roof, *drawn),
    )
    rows = [
        (
            point.line,
            f"{point.work.length:,}",
            prefixed(point.work.flops, "FLOP"),
            prefixed(point.work.bytes, "B"),
            f"{point.intensity:.3g}",
            seconds(point.seconds),
            prefixed(point.rate, "FLOP/s"),
            share(point.rate / min(peak, point.intensity * speed)),
        )
        for point in found
    ]
    return figure(
        chart,
        name=name,
        caption="Only operations over causal, selected pairs count, and bytes as if each were "
        "moved once. The roof was measured on this machine beside the run "
        f"({clean(peaks.how, limit=200)}): {prefixed(peak, 'FLOP/s')}, {prefixed(speed, 'B/s')}. "
        "A point above the slope reads from caches."
        + (" The flat roof is too low: a call did more than the product did." if low else ""),
        columns=("call", "length", "work", "bytes", "per byte", "time", "rate", "of the roof"),
        rows=rows,
    )
