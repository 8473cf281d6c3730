"""One rule of `gates.toml`, and one exception to it, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final

METHODS: Final = ("speed", "paired_mean", "binary", "hard", "exact", "report")
DIRECTIONS: Final = ("lower", "higher")


@dataclass(frozen=True, slots=True)
class Gate:
    """How the series that match a pattern are judged.

    Attributes:
        series: Pattern, `fnmatch` style ("speed/*").
        method: "speed" (paired log ratios), "paired_mean" (bootstrap over clusters), "binary"
            (McNemar and non-inferiority), "hard" (every check passes), "exact" (counts, no noise)
            or "report" (recorded, does not gate).
        direction: "lower" or "higher" is better.
        unit: Unit that samples must carry; empty for any.
        threshold: REGRESSION when the lower bound of the effect is above it (speed: tau).
        margin: PASS when the upper bound of the effect is below it.
        confidence: Of each one-sided bound.
        pass_confidence: speed: of the upper bound, where it is to be another; None for the same.
        resolution: speed: smallest slowdown that a PASS may exclude (fraction); the upper bound
            that it shows is no lower.
        pairs: Process pairs before the first judgement.
        max_pairs: Most pairs before INCONCLUSIVE.
        alternations: Turns per subject in one pair, at most.
        seconds: Of calls per subject in one pair, after which slow series have had enough turns.
        control: Pattern of the series that must not move; empty for none.
        drift: How far the control may move (fraction).
        signal_from: Pattern of the dense reference, `{series}` stands for the series' name; empty
            for none.
        signal_floor: Score that the dense reference must reach, or the series has no signal.
        must_not_decrease: exact: a decrease is a REGRESSION too.
        floor: Least mean of head when it is judged alone.
        ceiling: Greatest mean of head when it is judged alone. report: above it the run is INVALID.
        means: exact: what an increase most likely comes from, in words; empty for none.
    """

    series: str
    method: str
    direction: str = "lower"
    unit: str = ""
    threshold: float = 0.0
    margin: float = 0.0
    confidence: float = 0.99
    pass_confidence: float | None = None
    resolution: float = 0.0
    pairs: int = 8
    max_pairs: int = 16
    alternations: int = 12
    seconds: float = 1.0
    control: str = ""
    drift: float = 0.02
    signal_from: str = ""
    signal_floor: float = 0.8
    must_not_decrease: bool = False
    floor: float | None = None
    ceiling: float | None = None
    means: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot judge."""
        if not self.series:
            raise ValueError("series: wanted a pattern, got an empty text")
        _one_of("method", self.method, METHODS)
        _one_of("direction", self.direction, DIRECTIONS)
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence: wanted a number in (0.5, 1), got {self.confidence}")
        if not self.confidence <= self.excludes < 1:
            raise ValueError(
                f"pass_confidence: wanted a number in [confidence, 1), got {self.pass_confidence}"
            )
        for name in ("threshold", "margin", "drift", "resolution"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: wanted at least 0, got {getattr(self, name)}")
        if self.method in ("speed", "paired_mean", "binary") and self.margin <= self.threshold:
            raise ValueError(
                f"margin: wanted more than the threshold {self.threshold}, got {self.margin}"
            )
        if self.method != "speed" and (self.pass_confidence is not None or self.resolution):
            raise ValueError(
                f"pass_confidence, resolution: wanted them of the method speed alone, "
                f"got {self.method}"
            )
        if self.method == "speed" and self.resolution > self.margin:
            raise ValueError(
                f"resolution: wanted at most the margin {self.margin}, got {self.resolution}"
            )
        if not 2 <= self.pairs <= self.max_pairs:
            raise ValueError(
                f"pairs: wanted 2 <= pairs <= max_pairs, got {self.pairs} and {self.max_pairs}"
            )
        if self.alternations < 1:
            raise ValueError(f"alternations: wanted at least 1, got {self.alternations}")
        if not self.seconds > 0:
            raise ValueError(f"seconds: wanted more than 0, got {self.seconds}")

    @property
    def excludes(self) -> float:
        """Confidence of the upper bound, by which a slowdown is excluded."""
        return self.confidence if self.pass_confidence is None else self.pass_confidence

    def matches(self, series: str) -> bool:
        """Whether this gate is about the series."""
        return fnmatchcase(series, self.series)


@dataclass(frozen=True, slots=True)
class Waiver:
    """A reviewed exception: series (pattern), why, and the last day it holds."""

    series: str
    reason: str
    expires: date

    def __post_init__(self) -> None:
        """Refuse a waiver that does not say what or why."""
        for name in ("series", "reason"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name}: wanted a text, got an empty one")

    def holds(self, today: date) -> bool:
        """Whether the waiver still applies."""
        return today <= self.expires


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        near = get_close_matches(value, valid, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"{name}: wanted one of {', '.join(valid)}, got {value!r}{hint}")
