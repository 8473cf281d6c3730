"""Recorded sections, ``DIR/data/<section>.json``, and the estimates in them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from msa_harness.records import RunError
from msa_reports import documents
from msa_reports.documents import Object, as_object, get, number, optional_number
from msa_reports.text import number as shown

SCHEMA = "msa-bench/reproduction/1"
DATA = "data"
_COMMAND = "msa-bench reproduce"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A section's file.

    Attributes:
        section: its name.
        setup: what it was measured with: model, seed, device, versions.
        quick: whether it was measured with small sizes.
        commit: of the code; empty where unknown.
        dirty: whether the code had uncommitted changes.
        command: that measures the whole document.
        seconds: it took.
        result: what was measured; None where it could not be.
        why_not: why it could not.
    """

    section: str
    setup: Object
    quick: bool
    commit: str
    dirty: bool
    command: str
    seconds: float
    result: Object | None
    why_not: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval, None where there is none."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both bounds, if there are any."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def __str__(self) -> str:
        if self.bounds is None:
            return f"{shown(self.value)} (n {self.n})"
        low, high = self.bounds
        return f"{shown(self.value)} ({shown(low)} to {shown(high)}, n {self.n})"


def read_all(folder: Path, known: Collection[str]) -> dict[str, Recorded]:
    """The recorded sections of ``folder`` by name.

    Raises:
        RunError: a file is broken or of an unknown section, or there is none.
    """
    found = {}
    for path in sorted((folder / DATA).glob("*.json")):
        recorded = documents.read(path, _recorded)
        if recorded is None:
            continue
        if recorded.section != path.stem or recorded.section not in known:
            raise RunError(
                f"{path}: section: wanted {path.stem}, one of {', '.join(known)}, "
                f"got {recorded.section!r:.80}"
            )
        found[recorded.section] = recorded
    if not found:
        raise RunError(f"{folder / DATA}: wanted sections of `{_COMMAND}`, got none")
    return found


def _recorded(text: str) -> Recorded:
    document = documents.parse_object(text, of=_COMMAND)
    if document.get("schema") != SCHEMA:
        raise ValueError(f"schema: wanted {SCHEMA}, got {document.get('schema')!r:.80}")
    result = document.get("result")
    setup = as_object("setup", document.get("setup"))
    return Recorded(
        section=get(document, "section", str),
        setup=setup,
        quick=documents.within("setup", get, setup, "quick", bool),
        commit=get(document, "commit", str),
        dirty=get(document, "dirty", bool),
        command=get(document, "command", str),
        seconds=number(document, "seconds"),
        result=None if result is None else as_object("result", result),
        why_not=get(document, "why_not", str),
    )


def estimate(row: Object, name: str) -> Estimate:
    """The estimate ``row[name]``, else raise ValueError."""
    found = as_object(name, row.get(name))
    return documents.within(name, _estimate, found)


def _estimate(row: Object) -> Estimate:
    return Estimate(
        value=number(row, "value"),
        low=optional_number(row, "low"),
        high=optional_number(row, "high"),
        n=documents.count(row, "n"),
    )


def part(row: Object, name: str) -> Object:
    """The object ``row[name]``, else raise ValueError."""
    return as_object(name, row.get(name))
