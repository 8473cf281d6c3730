"""What the gate's own page shows: what its verdicts are worth, as plain records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msa_reports.evidence import Calibration, Evidence, Mutant, Power
from msa_reports.figures import Figure
from msa_reports.gate_tables import Table, calibration_tables, fault_table, mutant_table
from msa_reports.power import power_figures
from msa_reports.summary import Look
from msa_reports.text import clean, plural, share

_SOUND = Look(9, "SOUND", "✓", "good", "")
_GAPS = Look(4, "GAPS", "?", "doubt", "")
#: Share of mutants to be killed, and of the largest slowdowns to be found.
_ENOUGH = 0.95
_COMMANDS = {
    "faults.json": "msa-bench faults --json > DIRECTORY/faults.json",
    "calibration.json": "msa-bench calibrate --gates 20 --out DIRECTORY",
    "mutants.jsonl": "msa-bench mutants --count 300 --out DIRECTORY",
}


@dataclass(frozen=True, slots=True)
class GatePage:
    """The whole page."""

    title: str
    verdict: Look
    headline: str
    notes: tuple[str, ...]
    looks: tuple[Look, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    missing: tuple[str, ...]


def build(evidence: Evidence) -> GatePage:
    """What the page shows of a directory's files."""
    notes: list[str] = []
    tables: list[Table] = []
    figures: list[Figure] = []
    sound = not evidence.missing
    if (calibration := evidence.calibration) is not None:
        notes += list(_calibration_notes(calibration))
        figures += power_figures(calibration)
        tables += calibration_tables(calibration)
        sound = sound and _false_alarms(calibration) == 0 and _finds_the_largest(calibration)
    if (faults := evidence.faults) is not None:
        caught = sum(one.caught and one.applied for one in faults)
        notes.append(f"{caught} of {plural(len(faults), 'known fault')} caught.")
        tables.append(fault_table(faults))
        sound = sound and caught == len(faults)
    if (mutants := evidence.mutants) is not None:
        killed, counted = _killed(mutants)
        notes.append(
            f"{killed} of {plural(counted, 'mutant')} killed ({share(killed / max(counted, 1))}); "
            f"{len(mutants) - counted} more are the same program."
        )
        tables.append(mutant_table(mutants))
        sound = sound and killed >= _ENOUGH * counted
    verdict = _SOUND if sound else _GAPS
    doubt = "Not everything that the gate should do is shown here"
    headline = "Nothing that is recorded here speaks against the gate" if sound else doubt
    return GatePage(
        title="msa-bench: what a PASS is worth",
        verdict=verdict,
        headline=headline + ".",
        notes=tuple(notes),
        looks=tuple(dict.fromkeys(row.look for table in tables for row in table.rows)),
        tables=tuple(tables),
        figures=tuple(figures),
        missing=tuple(f"{name}: write it with {_COMMANDS[name]}" for name in evidence.missing),
    )


def _false_alarms(calibration: Calibration) -> int:
    one = calibration.identical
    simulated = one.verdicts.get("REGRESSION", 0) if one is not None else 0
    return simulated + calibration.real.get("REGRESSION", 0)


def _finds_the_largest(calibration: Calibration) -> bool:
    """Whether the largest slowdown is found often enough in every series."""
    by_effect = list(_by_effect(calibration.speed))
    return bool(by_effect) and all(row.found[0] >= _ENOUGH for row in by_effect[-1][1])


def _calibration_notes(calibration: Calibration) -> Iterator[str]:
    real = ", ".join(f"{count} {clean(name)}" for name, count in calibration.real.items())
    yield f"Real gates of identical code: {real or 'none'}; {calibration.pairs} pairs of processes."
    if (one := calibration.identical) is not None:
        alarms, _, high = one.found
        yield (
            f"Simulated gates of identical code: {share(alarms)} of {one.gates} raised an alarm, "
            f"at most {share(high)} with 95 % confidence."
        )
    for effect, rows in _by_effect(calibration.speed):
        least = min(rows, key=lambda row: row.found[0])
        yield (
            f"Code slower by {share(effect)} is found in at least {share(least.found[0])} of "
            f"{least.gates} gates; least often in {clean(least.series)}."
        )
        if unsaid := sum(row.unsaid for row in rows):
            total = sum(row.gates for row in rows)
            yield f"It passed in {unsaid} of {total} gates with an interval that excluded it."


def _by_effect(rows: Sequence[Power]) -> Iterator[tuple[float, list[Power]]]:
    slowed = [row for row in rows if row.series]
    for effect in sorted({row.effect for row in slowed}):
        yield effect, [row for row in slowed if row.effect == effect]


def _killed(mutants: Sequence[Mutant]) -> tuple[int, int]:
    """How many were killed, of those that are another program."""
    counted = [one for one in mutants if not one.equivalent]
    return sum(bool(one.gate) for one in counted), len(counted)
