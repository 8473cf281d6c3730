"""What is recorded of the gate itself: injected faults, calibration, mutants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msa_reports import documents
from msa_reports.documents import as_object, get, number, objects

FAULTS = "faults.json"
CALIBRATION = "calibration.json"
MUTANTS = "mutants.jsonl"
FILES = (FAULTS, CALIBRATION, MUTANTS)


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of `faults --json`."""

    name: str
    kind: str
    summary: str
    seen: str
    gate: str
    verdict: str
    detail: str
    caught: bool
    applied: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Power:
    """Simulated gates of one kind.

    Attributes:
        series: That was slowed, or lost what it recalled; empty for identical code.
        effect: How much, a fraction.
        gates: How many.
        verdicts: Of the series where one was changed, else of the run.
        found: Share of REGRESSION with its 95 % interval.
        mde: Smallest effect that a gate says it would find, by series; the median over gates.
        unsaid: PASS although the interval excluded the effect.
    """

    series: str
    effect: float
    gates: int
    verdicts: Mapping[str, int]
    found: tuple[float, float, float]
    mde: Mapping[str, float]
    unsaid: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `calibrate` wrote.

    Attributes:
        pairs: Real pairs of processes behind the simulated gates.
        real: Verdicts of the real self-tests.
        speed: Simulated gates, those of identical code among them.
        recall: The same with lost recall.
    """

    pairs: int
    real: Mapping[str, int]
    speed: tuple[Power, ...]
    recall: tuple[Power, ...]

    @property
    def identical(self) -> Power | None:
        """The gates of identical code."""
        return next((one for one in self.speed if not one.series), None)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One line of what `mutants` wrote; `gate` is empty for a survivor."""

    name: str
    what: str
    source: str
    gate: str
    detail: str
    equivalent: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a directory holds; None or empty where it has no such file."""

    faults: tuple[Fault, ...] | None = None
    calibration: Calibration | None = None
    mutants: tuple[Mutant, ...] | None = None
    missing: tuple[str, ...] = field(default=())


def has_evidence(directory: Path) -> bool:
    """Whether there is anything that the gate's page could show."""
    return any((directory / name).exists() for name in FILES)


def read_evidence(directory: Path) -> Evidence:
    """Read what there is of FILES in a directory.

    Raises:
        RunError: A file is broken or foreign; the text names it.
    """
    missing = tuple(name for name in FILES if not (directory / name).exists())
    return Evidence(
        faults=documents.read(directory / FAULTS, _faults),
        calibration=documents.read(directory / CALIBRATION, _calibration),
        mutants=documents.read(directory / MUTANTS, _mutants),
        missing=missing,
    )


def _faults(text: str) -> tuple[Fault, ...]:
    document = as_object("document", json.loads(text))
    return tuple(
        Fault(
            kind=get(row, "class", str),
            caught=get(row, "caught", bool),
            applied=get(row, "applied", bool),
            seconds=number(row, "seconds"),
            **{
                name: get(row, name, str)
                for name in ("name", "summary", "seen", "gate", "verdict", "detail")
            },
        )
        for row in objects(document, "faults")
    )


def _calibration(text: str) -> Calibration:
    document = as_object("document", json.loads(text))
    return Calibration(
        pairs=get(document, "pairs", int),
        real=_counts(document, "real"),
        speed=tuple(map(_power, objects(document, "simulated"))),
        recall=tuple(map(_power, objects(document, "recall"))),
    )


def _power(row: Mapping[str, Any]) -> Power:
    series = get(row, "series", str)
    shares = get(row, "regression", list)
    if len(shares) != 3:
        raise ValueError(f"regression: wanted a share and its bounds, got {shares!r:.80}")
    share, low, high = (number({"regression": one}, "regression") for one in shares)
    mde = as_object("mde", row.get("mde"))
    return Power(
        series=series,
        effect=number(row, "slowdown"),
        gates=get(row, "gates", int),
        verdicts=_counts(row, "own" if series else "verdicts"),
        found=(share, low, high),
        mde={name: number(mde, name) for name in mde},
        unsaid=get(row, "passed_without_saying", int),
    )


def _mutants(text: str) -> tuple[Mutant, ...]:
    rows = (as_object(f"line {i}", json.loads(line)) for i, line in enumerate(text.splitlines(), 1))
    return tuple(
        Mutant(
            name=get(row, "mutant", str),
            equivalent=get({"equivalent": "", **row}, "equivalent", str),
            **{name: get(row, name, str) for name in ("what", "source", "gate", "detail")},
        )
        for row in rows
    )


def _counts(row: Mapping[str, Any], name: str) -> dict[str, int]:
    counts = as_object(name, row.get(name))
    return {key: get(counts, key, int) for key in counts}
