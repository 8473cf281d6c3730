"""Verdicts, their exit codes and their precedence, and the outcome of a judgement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal

More = Literal["confirm", "more"]


class Verdict(StrEnum):
    """What is said of one series, or of a whole run (the first five only).

    PASS: no worse than the margin allows. REGRESSION: worse, beyond doubt. ERROR: could not be
    measured. INVALID: measured under conditions that void it. INCONCLUSIVE: too few or too noisy
    samples to say. IMPROVED: better, beyond doubt. NEW: base has no such series. WAIVED: a
    reviewed exception applies. REMOVED: head has no such series. NO_SIGNAL: cannot tell good from
    bad here, so it does not gate.
    """

    PASS = "PASS"
    REGRESSION = "REGRESSION"
    ERROR = "ERROR"
    INVALID = "INVALID"
    INCONCLUSIVE = "INCONCLUSIVE"
    IMPROVED = "IMPROVED"
    NEW = "NEW"
    WAIVED = "WAIVED"
    REMOVED = "REMOVED"
    NO_SIGNAL = "NO_SIGNAL"

    @property
    def label(self) -> str:
        """The verdict as people read it."""
        return "no signal" if self is Verdict.NO_SIGNAL else self.value

    @property
    def counts_as(self) -> Verdict:
        """Which verdict of a run this one weighs as."""
        return _COUNTS_AS.get(self, self)


_COUNTS_AS: Final = {
    Verdict.IMPROVED: Verdict.PASS,
    Verdict.NEW: Verdict.PASS,
    Verdict.WAIVED: Verdict.PASS,
    Verdict.NO_SIGNAL: Verdict.PASS,
    Verdict.REMOVED: Verdict.INVALID,
}

EXIT_CODES: Final[Mapping[Verdict, int]] = {
    Verdict.PASS: 0,
    Verdict.REGRESSION: 1,
    Verdict.ERROR: 2,
    Verdict.INCONCLUSIVE: 3,
    Verdict.INVALID: 4,
}

PRECEDENCE: Final = (
    Verdict.REGRESSION,
    Verdict.ERROR,
    Verdict.INVALID,
    Verdict.INCONCLUSIVE,
    Verdict.PASS,
)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a run from those of its series; ERROR when there are none."""
    seen = {verdict.counts_as for verdict in verdicts}
    return next((verdict for verdict in PRECEDENCE if verdict in seen), Verdict.ERROR)


@dataclass(frozen=True, slots=True)
class SeriesVerdict:
    """The verdict on one series with all that is needed to check it.

    Attributes:
        name: Name of the series.
        suite: Suite it belongs to.
        unit: Unit of base and head.
        direction: "lower" or "higher" is better.
        verdict: The verdict.
        base: Its value on base, None where missing.
        head: Its value on head, None where missing.
        effect: Positive where head is worse: a fraction of base for time, bytes and counts,
            absolute for scores.
        low: Lower confidence bound of `effect` (one-sided, at `confidence`).
        high: Upper confidence bound of `effect` (one-sided, at `pass_confidence`); of a PASS on
            speed no lower than the gate's resolution.
        threshold: REGRESSION needs `low` above it.
        margin: PASS needs `high` below it.
        confidence: Of the lower bound.
        pass_confidence: Of the upper bound.
        n: Independent samples behind it: process pairs, items, checks.
        mde: Smallest true effect that would be called a REGRESSION with 90 % power.
        method: How it was judged.
        note: Reasons, in words.
        repro: Command that repeats the series.
        more: What the caller should measure before the verdict is final.
    """

    name: str
    suite: str
    unit: str
    direction: str
    verdict: Verdict
    base: float | None = None
    head: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    margin: float | None = None
    confidence: float | None = None
    pass_confidence: float | None = None
    n: int = 0
    mde: float | None = None
    method: str = ""
    note: str = ""
    repro: str = ""
    more: More | None = None

    def to_json(self) -> dict[str, object]:
        """Plain values, as `gate --json` gives them."""
        names = (
            "name suite unit direction base head effect low high threshold margin "
            "confidence pass_confidence n mde"
        )
        plain: dict[str, object] = {name: getattr(self, name) for name in names.split()}
        plain |= {"verdict": self.verdict.value, "method": self.method}
        return plain | {"note": self.note, "repro": self.repro}

    def noted(self, text: str, verdict: Verdict | None = None) -> SeriesVerdict:
        """A copy with one more reason, and another verdict where one is given."""
        note = f"{self.note}; {text}" if self.note else text
        return replace(self, note=note, verdict=verdict or self.verdict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a judgement says: one verdict, one per series, and notes on the whole."""

    verdict: Verdict
    series: tuple[SeriesVerdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of the verdict."""
        return EXIT_CODES[self.verdict]

    def to_json(self, environment: Mapping[str, object] | None = None) -> dict[str, object]:
        """The document of `gate --json`, `compare --json` and `verdict.json`."""
        return {
            "verdict": self.verdict.value,
            "exit_code": self.exit_code,
            "series": [series.to_json() for series in self.series],
            "environment": dict(environment or {}),
            "notes": list(self.notes),
        }


def series_from_json(data: Mapping[str, Any]) -> SeriesVerdict:
    """Read back what `SeriesVerdict.to_json` wrote.

    Raises:
        ValueError: A field is missing, unknown or not a verdict.
    """
    try:
        return SeriesVerdict(**{**data, "verdict": Verdict(data["verdict"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"series of a verdict: {error}") from error


def outcome_from_json(data: object) -> Outcome:
    """Read back `verdict.json`.

    Raises:
        ValueError: It is not such a document.
    """
    if not isinstance(data, dict) or not isinstance(data.get("series"), list):
        raise ValueError(f"verdict: wanted an object with verdict and series, got {data!r:.80}")
    series = tuple(series_from_json(item) for item in data["series"])
    return Outcome(Verdict(str(data.get("verdict"))), series, tuple(data.get("notes", ())))
