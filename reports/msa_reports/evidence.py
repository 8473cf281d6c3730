"""What is recorded of the gate itself: injected faults, calibration, mutants."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from msa_harness.records import RunError

FAULTS = "faults.json"
CALIBRATION = "calibration.json"
MUTANTS = "mutants.jsonl"
FILES = (FAULTS, CALIBRATION, MUTANTS)

T = TypeVar("T")


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


def read_evidence(directory: Path) -> Evidence:
    """Read what there is of FILES in a directory.

    Raises:
        RunError: A file is broken or foreign; the text names it.
    """
    missing = tuple(name for name in FILES if not (directory / name).exists())
    return Evidence(
        faults=_read(directory / FAULTS, _faults),
        calibration=_read(directory / CALIBRATION, _calibration),
        mutants=_read(directory / MUTANTS, _mutants),
        missing=missing,
    )


def _read(path: Path, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: {error}") from error


def _faults(text: str) -> tuple[Fault, ...]:
    document = _object("document", json.loads(text))
    return tuple(
        Fault(
            kind=_get(row, "class", str),
            caught=_get(row, "caught", bool),
            applied=_get(row, "applied", bool),
            seconds=_number(row, "seconds"),
            **{
                name: _get(row, name, str)
                for name in ("name", "summary", "seen", "gate", "verdict", "detail")
            },
        )
        for row in _objects(document, "faults")
    )


def _calibration(text: str) -> Calibration:
    document = _object("document", json.loads(text))
    return Calibration(
        pairs=_get(document, "pairs", int),
        real=_counts(document, "real"),
        speed=tuple(map(_power, _objects(document, "simulated"))),
        recall=tuple(map(_power, _objects(document, "recall"))),
    )


def _power(row: Mapping[str, Any]) -> Power:
    series = _get(row, "series", str)
    shares = _get(row, "regression", list)
    if len(shares) != 3:
        raise ValueError(f"regression: wanted a share and its bounds, got {shares!r:.80}")
    share, low, high = (_number({"regression": one}, "regression") for one in shares)
    mde = _object("mde", row.get("mde"))
    return Power(
        series=series,
        effect=_number(row, "slowdown"),
        gates=_get(row, "gates", int),
        verdicts=_counts(row, "own" if series else "verdicts"),
        found=(share, low, high),
        mde={name: _number(mde, name) for name in mde},
        unsaid=_get(row, "passed_without_saying", int),
    )


def _mutants(text: str) -> tuple[Mutant, ...]:
    rows = (_object(f"line {i}", json.loads(line)) for i, line in enumerate(text.splitlines(), 1))
    return tuple(
        Mutant(
            name=_get(row, "mutant", str),
            equivalent=_get({"equivalent": "", **row}, "equivalent", str),
            **{name: _get(row, name, str) for name in ("what", "source", "gate", "detail")},
        )
        for row in rows
    )


def _object(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: wanted an object, got {value!r:.80}")
    return value


def _objects(row: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [_object(f"{name}[{i}]", one) for i, one in enumerate(_get(row, name, list))]


def _counts(row: Mapping[str, Any], name: str) -> dict[str, int]:
    counts = _object(name, row.get(name))
    return {key: _get(counts, key, int) for key in counts}


def _get(row: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = row.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name}: wanted {kind.__name__}, got {value!r:.80}")
    return value


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: wanted a finite number, got {value!r:.80}")
    return float(value)
