"""What every face of a report says about an outcome: order, words, numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from msa_harness.verdicts import Outcome, SeriesVerdict, Verdict
from msa_reports.text import NOT_MEASURED, clean, number, plural, share, signed


@dataclass(frozen=True, slots=True)
class Look:
    """How a verdict is shown. ``rank`` 0 is the worst; ``mark`` says it without colour."""

    rank: int
    word: str
    mark: str
    tone: str
    meaning: str


LOOKS: dict[Verdict, Look] = {
    Verdict.REGRESSION: Look(0, "REGRESSION", "✗", "bad", "worse than the threshold allows"),
    Verdict.ERROR: Look(1, "ERROR", "!!", "broken", "could not be measured"),
    Verdict.INVALID: Look(2, "INVALID", "!", "broken", "measured under conditions that void it"),
    Verdict.REMOVED: Look(3, "REMOVED", "-", "broken", "measured on base and missing on head"),
    Verdict.INCONCLUSIVE: Look(4, "INCONCLUSIVE", "?", "doubt", "too noisy to decide"),
    Verdict.WAIVED: Look(5, "WAIVED", "~", "doubt", "worse, and allowed by a waiver"),
    Verdict.NO_SIGNAL: Look(6, "NO SIGNAL", "○", "plain", "cannot tell good from bad here"),
    Verdict.NEW: Look(7, "NEW", "+", "plain", "no base to compare with"),
    Verdict.IMPROVED: Look(8, "IMPROVED", "▲", "good", "better than base"),
    Verdict.PASS: Look(9, "PASS", "✓", "good", "within its margin"),
}
RECORDED = Look(10, "RECORDED", "·", "plain", "only recorded; no gate")
GOOD = frozenset({Verdict.PASS, Verdict.IMPROVED, Verdict.NEW})


def look(verdict: Verdict) -> Look:
    """Return how the verdict of a run is shown."""
    return LOOKS[verdict]


def look_of(series: SeriesVerdict) -> Look:
    """Return how the verdict of ``series`` is shown."""
    return RECORDED if _is_recorded(series) else LOOKS[series.verdict]


def _is_recorded(series: SeriesVerdict) -> bool:
    # The judge gives what is only recorded the verdict of what cannot be judged.
    return series.verdict is Verdict.NO_SIGNAL and series.method == "report"


def needs_attention(series: SeriesVerdict) -> bool:
    """Say whether a reader should look at ``series``: neither good nor merely recorded."""
    return series.verdict not in GOOD and not _is_recorded(series)


def worst_first(series: Iterable[SeriesVerdict]) -> list[SeriesVerdict]:
    """Return ``series`` by verdict, then the furthest past its threshold, then by name."""

    def key(s: SeriesVerdict) -> tuple[int, float, str, list[tuple[int, str]]]:
        severity = 0.0
        if needs_attention(s) and s.effect is not None:
            severity = s.effect / s.threshold if s.threshold else s.effect
        return look_of(s).rank, -severity, s.suite, natural(s.name)

    return sorted(series, key=key)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts "speed/8192" before "speed/16384"."""
    parts = re.split(r"(\d+)", name)
    return [(int(p) if p.isdecimal() and p.isascii() and len(p) < 20 else -1, p) for p in parts]


def headline(outcome: Outcome) -> str:
    """Return the verdict as a sentence, without the verdict's own word."""
    total = len(outcome.series)
    counts = Counter(s.verdict for s in outcome.series)
    of_all = f"of {plural(total, 'series')}"
    if total == 0:
        return "nothing was measured, which is never a pass"
    match outcome.verdict:
        case Verdict.REGRESSION:
            worst = worst_first(outcome.series)[0]
            how = "" if worst.effect is None else f" by {effect(worst)}"
            text = (
                f"{counts[outcome.verdict]:,} {of_all} got worse; worst: {clean(worst.name)}{how}"
            )
        case Verdict.ERROR:
            broken = counts[outcome.verdict]
            what = f"{broken:,} {of_all}" if broken else "something that was asked for"
            text = f"{what} could not be measured; see the notes"
        case Verdict.INVALID:
            void = counts[Verdict.INVALID] + counts[Verdict.REMOVED]
            text = f"{void:,} {of_all} void or removed; the run does not answer the question"
        case Verdict.INCONCLUSIVE:
            text = f"{counts[outcome.verdict]:,} {of_all} too noisy to decide; nothing regressed"
        case Verdict.PASS:
            text = f"none {of_all} regressed"
        case _:
            text = f"{plural(total, 'series')}"
    silent = sum(look_of(s) is LOOKS[Verdict.NO_SIGNAL] for s in outcome.series)
    return f"{text}; {silent:,} without signal" if silent else text


def tally(outcome: Outcome) -> list[tuple[Look, int]]:
    """Return how many series have each verdict, worst first."""
    counts = Counter(look_of(s) for s in outcome.series)
    return sorted(counts.items(), key=lambda pair: pair[0].rank)


def is_share(series: SeriesVerdict) -> bool:
    """Say whether the effect is a fraction of base (time, bytes, counts) and not a difference."""
    if series.method:
        return series.method in ("speed", "exact")
    return series.unit.strip().lower() in {"s", "ms", "us", "ns", "b", "bytes"}


def effect(series: SeriesVerdict) -> str:
    """Return the effect: positive is worse, whatever the direction of the series."""
    return share(series.effect, sign=True) if is_share(series) else signed(series.effect)


def interval(series: SeriesVerdict) -> str:
    """Return ``[low, high]`` of the effect, empty where there is none."""
    if series.low is None and series.high is None:
        return ""
    ends = (
        share(end, sign=True) if is_share(series) else signed(end)
        for end in (series.low, series.high)
    )
    return f"[{', '.join(ends)}]"


def bound(series: SeriesVerdict, value: float | None) -> str:
    """Return a threshold or a minimum detectable effect in the scale of the effect."""
    return share(value) if is_share(series) else number(value)


def facts(series: SeriesVerdict) -> str:
    """Return what the numbers say about ``series`` in one sentence."""
    better = f"{clean(series.direction, limit=20)} is better"
    unit = clean(series.unit, limit=40)
    values = f"{number(series.base)} to {number(series.head)}"
    if series.base is None and series.head is not None:
        values = f"head {number(series.head)}"
    parts = [f"{values} {unit} ({better})"]
    if series.effect is not None:
        span = interval(series)
        parts.append(f"effect {effect(series)} {span}".rstrip())
        if span and series.confidence is not None:
            parts.append(_bounds(series.confidence, series.pass_confidence))
    for name, value in (("threshold", series.threshold), ("margin", series.margin)):
        if value is not None:
            parts.append(f"{name} {bound(series, value)}")
    parts.append(f"n {series.n:,}")
    return ", ".join(parts)


def _bounds(low: float, high: float | None) -> str:
    if high is None or high == low:
        return f"each bound at {share(low)}"
    return f"lower bound at {share(low)}, upper at {share(high)}"


def detectable(series: SeriesVerdict) -> str:
    """Return the minimum detectable effect, "n/a" where it is unknown."""
    return bound(series, series.mde) if series.mde is not None else NOT_MEASURED
