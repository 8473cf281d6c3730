"""Plots of what a run measured: crossover, speed-up, and the pairs behind a verdict."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median

from msa_harness.records import Sample, log_ratio
from msa_harness.verdicts import SeriesVerdict
from msa_reports import summary, svg
from msa_reports.figures import Figure, figure
from msa_reports.scale import Axis
from msa_reports.shapes import MARKS
from msa_reports.speedups import DENSE, PREFILL, Speedup
from msa_reports.text import clean, number, plural, seconds, share

Times = Mapping[str, Mapping[int, float]]  # line -> length -> seconds
_BINS = 24
_MAX_LINES = len(MARKS)


def _length(value: float) -> str:
    whole = int(value)
    return f"{whole // 1024}K" if whole >= 1024 and whole % 1024 == 0 else f"{whole:,}"


def _whole(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else ""


def _line(overlap: str) -> str:
    return f"MSA, {clean(overlap, limit=40)} overlap"


def prefill_times(samples: Iterable[Sample]) -> dict[str, Times]:
    """Return, by dtype, the seconds of "dense" and of one line per overlap of MSA, by length.

    The median over processes, of head where head was measured, else of base. The dtype is
    "float32" where the series names none.
    """
    found: dict[tuple[str, str, int], dict[str, list[float]]] = {}
    for sample in samples:
        if sample.value is None or sample.value <= 0 or sample.unit != "s":
            continue
        if match := PREFILL.fullmatch(sample.series):
            line = _line(match[3])
        elif match := DENSE.fullmatch(sample.series):
            line = "dense"
        else:
            continue
        key = (match[1] or "float32", line, int(match[2]))
        found.setdefault(key, {}).setdefault(sample.subject, []).append(sample.value)
    times: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for (dtype, line, length), by_subject in sorted(found.items()):
        times[dtype][line][length] = median(by_subject.get("head") or by_subject["base"])
    return {dtype: dict(lines) for dtype, lines in times.items()}


def crossover_figures(
    times: Times,
    limits: Mapping[int, float] | None,
    *,
    dtype: str,
    turns: Iterable[Speedup] = (),
) -> list[Figure]:
    """Return time by length, and speed-up over dense by length under its arithmetic limit.

    Args:
        times: what `prefill_times` returns for one dtype; must have "dense" and another line.
        limits: length -> largest speed-up the counted operations allow; None if not recorded.
        dtype: of all lines.
        turns: speed-ups measured turn against turn; they stand where there are any, the ratio of
            the times elsewhere.
    """
    sparse = [name for name in times if name != "dense"][: _MAX_LINES - 2]
    lengths = tuple(sorted({n for line in times.values() for n in line}))
    x = Axis(
        "sequence length (tokens, log scale)",
        base=2,
        ticks=tuple(map(float, lengths)),
        show=_length,
    )
    columns = ("length", "dense", *sparse, *(f"speed-up, {name}" for name in sparse), "limit")
    dense, rows = times["dense"], []
    speedup: dict[str, dict[int, float]] = {
        name: {n: dense[n] / t for n, t in times[name].items() if n in dense} for name in sparse
    }
    for one in turns:
        if one.dtype == dtype and _line(one.overlap) in speedup:
            speedup[_line(one.overlap)][one.tokens] = one.ratio
    for n in lengths:
        cells = [seconds(times[m][n]) if n in times[m] else "n/a" for m in ("dense", *sparse)]
        cells += [f"{speedup[m][n]:.2f}" if n in speedup[m] else "n/a" for m in sparse]
        limit = (limits or {}).get(n)
        rows.append((f"{n:,}", *cells, f"{limit:.2f}" if limit else "n/a"))

    def line(name: str, values: Mapping[int, float], slot: int) -> svg.Line:
        return svg.Line(name, tuple((float(n), v) for n, v in sorted(values.items())), slot)

    time_chart = svg.Chart(
        f"Crossover: time of dense and MSA prefill, {dtype}",
        f"Seconds of one call at {plural(len(lengths), 'length')}, dense attention and MSA.",
        x,
        Axis("time of one call (log scale)", base=10, show=seconds),
        (line("dense", dense, 0), *(line(m, times[m], i + 1) for i, m in enumerate(sparse))),
    )
    within = {n: v for n, v in (limits or {}).items() if n in lengths}
    speed_lines = [line(m, speedup[m], i + 1) for i, m in enumerate(sparse)]
    if within:
        speed_lines.append(line("arithmetic limit", within, 6))
    speed_chart = svg.Chart(
        f"Speed-up over dense, {dtype}",
        "Dense time over MSA time by length"
        + (", with the largest ratio the counted operations allow." if within else "."),
        x,
        Axis("dense time / MSA time", include=(0.0,)),
        tuple(speed_lines),
        (svg.Rule("break-even", 1.0),),
    )
    missing = "" if within else " The arithmetic limit is not recorded for these lengths."
    return [
        figure(
            time_chart,
            name=f"crossover-{dtype}",
            caption="Index scoring and top-k included; median over processes. Lower is better.",
            columns=columns,
            rows=rows,
        ),
        figure(
            speed_chart,
            name=f"speed-up-{dtype}",
            caption="Above 1, MSA is the faster one. No implementation can pass the limit by "
            f"saving operations alone.{missing}",
            columns=columns,
            rows=rows,
        ),
    ]


def paired_effects(series: SeriesVerdict, samples: Sequence[Sample]) -> list[tuple[str, float]]:
    """Return ``(item, effect)`` per pair, in the order measured; positive is worse.

    ln(head / base) for times and bytes, head - base for scores, each turned so that positive is
    the bad direction.
    """
    found: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        if sample.value is not None:
            found.setdefault(sample.item, {})[sample.subject] = sample
    sign = -1.0 if series.direction == "higher" else 1.0
    pairs = []
    for item, pair in found.items():
        if len(pair) < 2:
            continue
        base, head = pair["base"], pair["head"]
        if not summary.is_share(series):
            pairs.append((item, sign * ((head.value or 0.0) - (base.value or 0.0))))
        elif min(base.value or 0.0, head.value or 0.0, *base.raw, *head.raw) > 0:
            pairs.append((item, sign * log_ratio(base, head)))
    return pairs


def _edges(values: Sequence[float]) -> tuple[float, ...]:
    """Return the edges of a histogram's bins; one bin per value where all are small integers."""
    low, high = min(values), max(values)
    if high - low < _BINS and all(value == int(value) for value in values):
        return tuple(int(low) - 0.5 + i for i in range(int(high - low) + 2))
    if high - low < 1e-12:
        pad = 0.05 * abs(low) or 0.5
        low, high = low - pad, high + pad
    bins = min(_BINS, max(4, math.ceil(1.5 * math.sqrt(len(values)))))
    return tuple(low + i * (high - low) / bins for i in range(bins + 1))


def distribution_figure(
    series: SeriesVerdict, pairs: Sequence[tuple[str, float]], *, name: str
) -> Figure:
    """Return the distribution of the paired effects of one series, against its threshold.

    Args:
        series: the judged series.
        pairs: what `paired_effects` returns, at least one.
        name: unique on the page.
    """
    relative = summary.is_share(series)
    scale = 100.0 if relative else 1.0
    values = [scale * value for _, value in pairs]
    unit = "ln(head / base), %" if relative else f"difference, {clean(series.unit, limit=30)}"
    edges = _edges(values)
    whole = all(value == int(value) for value in values) and len(edges) < 8
    ticks = tuple((a + b) / 2 for a, b in pairwise(edges)) if whole else ()
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(bisect_right(edges, value), len(counts)) - 1] += 1
    rules = [svg.Rule("no change", 0.0, vertical=True)]
    if series.threshold is not None:
        at = math.log1p(series.threshold) * 100 if relative else series.threshold
        rules.append(svg.Rule("threshold", at, vertical=True))
    # A median says nothing of items that pass or fail.
    middle, kind = (median(values), "median") if relative else (fmean(values), "mean")
    middle += 0.0  # never -0
    chart = svg.Chart(
        f"Pairs of {clean(series.name, limit=80)}",
        f"Histogram of {plural(len(values), 'paired value')}; {kind} {middle:.3g}, from "
        f"{min(values):.3g} to {max(values):.3g}; positive is worse.",
        Axis(f"{unit} (right is worse)", ticks=ticks),
        Axis("pairs", include=(0.0,), show=_whole),
        rules=tuple(rules),
        bars=svg.Bars(
            edges,
            tuple(counts),
            tuple(values) if len(values) <= 200 else (),
        ),
    )
    shown = pairs[:200]
    rows = [
        (clean(item, limit=80), share(v, sign=True) if relative else number(v)) for item, v in shown
    ]
    if len(pairs) > len(shown):
        rows.append((f"{len(pairs) - len(shown):,} more in samples.jsonl", ""))
    return figure(
        chart,
        name=name,
        group="Pairs behind the verdicts",
        caption=f"{plural(len(values), 'pair')}, {kind} {middle:+.3g}"
        f"{' %' if relative else ''}. Each tick on the axis is one pair.",
        columns=("pair", "effect"),
        rows=rows,
    )
