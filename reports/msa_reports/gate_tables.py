"""Tables of the gate's own page: calibration, faults, mutants, worst rows first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from msa_reports.evidence import Calibration, Fault, Mutant, Power
from msa_reports.page import Cell
from msa_reports.summary import Look
from msa_reports.text import clean, plural, share

CAUGHT = Look(9, "CAUGHT", "✓", "good", "stopped by the gate")
MISSED = Look(0, "MISSED", "✗", "bad", "nothing stopped it")
IDLE = Look(1, "NOT APPLIED", "!!", "broken", "its code never ran")
EQUIVALENT = Look(8, "EQUIVALENT", "=", "plain", "another text, the same program")
_ALARM = Look(0, "ALARM", "✗", "bad", "identical code was called slower")
_QUIET = Look(9, "QUIET", "✓", "good", "no false alarm")
_MEASURED = Look(5, "MEASURED", "·", "plain", "how often it is found")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: how it is judged, and its cells."""

    look: Look
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be sorted; `numeric` says which columns are numbers."""

    name: str
    count: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[Row, ...]


def _text(value: str, *, limit: int = 300) -> Cell:
    shown = clean(value, limit=limit)
    return Cell(shown, shown)


def _percent(value: float) -> Cell:
    return Cell(share(value), repr(value))


def calibration_tables(calibration: Calibration) -> Iterator[Table]:
    """Simulated gates of slower code, and of lost recall."""
    for name, rows in (
        ("Slower code", calibration.speed),
        ("Lost recall", calibration.recall),
    ):
        if rows:
            yield Table(
                name,
                plural(sum(row.gates for row in rows), "simulated gate"),
                ("Series", "Verdict", "Effect", "Found", "At least", "At most", "Others", "MDE"),
                (False, True, True, True, True, True, False, True),
                tuple(_power_row(row) for row in rows),
            )


def _power_row(row: Power) -> Row:
    others = ", ".join(f"{n} {name}" for name, n in row.verdicts.items() if name != "REGRESSION")
    share_, low, high = row.found
    mde = row.mde.get(row.series)
    same = _ALARM if share_ > 0 else _QUIET
    cells = (
        _text(row.series or "identical code"),
        _percent(row.effect),
        _percent(share_),
        _percent(low),
        _percent(high),
        _text(others),
        _percent(mde) if mde is not None else Cell("", ""),
    )
    return Row(_MEASURED if row.series else same, cells)


def fault_table(faults: Sequence[Fault]) -> Table:
    """Every fault with the gate that caught it."""

    def look(one: Fault) -> Look:
        if not one.applied:
            return IDLE
        return CAUGHT if one.caught else MISSED

    rows = (
        Row(
            look(one),
            (
                _text(one.name),
                _text(one.kind),
                _text(one.summary),
                _text(one.gate),
                _text(one.verdict),
                Cell(f"{one.seconds:.1f}", repr(one.seconds)),
                _text(one.detail),
            ),
        )
        for one in faults
    )
    return Table(
        "Faults",
        plural(len(faults), "fault"),
        ("Fault", "Verdict", "Class", "What is wrong", "Gate", "Says", "Seconds", "Because"),
        (False, True, False, False, False, False, True, False),
        _worst_first(rows),
    )


def mutant_table(mutants: Sequence[Mutant]) -> Table:
    """Every mutant with the gate that killed it."""

    def look(one: Mutant) -> Look:
        if one.equivalent:
            return EQUIVALENT
        return CAUGHT if one.gate else MISSED

    rows = (
        Row(
            look(one),
            (
                _text(one.name),
                _text(one.what),
                _text(one.source),
                _text(one.gate),
                _text(one.equivalent or one.detail),
            ),
        )
        for one in mutants
    )
    return Table(
        "Mutants",
        plural(len(mutants), "mutant"),
        ("Mutant", "Verdict", "Change", "Line", "Killed by", "Because"),
        (False, True, False, False, False, False),
        _worst_first(rows),
    )


def _worst_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: row.look.rank))
