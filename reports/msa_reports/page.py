"""What the HTML page shows, as plain records: everything is text by the time a template sees it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msa_harness.records import RunHeader, Sample
from msa_harness.verdicts import Outcome, SeriesVerdict
from msa_reports import summary
from msa_reports.figures import Figure
from msa_reports.summary import Look
from msa_reports.text import clean, number, plural

if TYPE_CHECKING:
    from msa_reports.gate_page import GatePage

MAX_CARDS = 60
NOT_JUDGED = Look(1, "NOT JUDGED YET", "?", "doubt", "")


@dataclass(frozen=True, slots=True)
class Cell:
    """A number as shown, and as sorted ("" where missing)."""

    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Card:
    """A series that needs a look."""

    look: Look
    name: str
    facts: str
    note: str
    mde: str
    repro: str


@dataclass(frozen=True, slots=True)
class Row:
    """A series in its suite's table."""

    look: Look
    name: str
    note: str
    unit: str
    direction: str
    base: Cell
    head: Cell
    effect: Cell
    interval: str
    threshold: Cell
    mde: Cell
    n: int
    repro: str


@dataclass(frozen=True, slots=True)
class Suite:
    """One table."""

    name: str
    count: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A list of facts about the run."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page."""

    title: str
    created: str
    verdict: Look
    headline: str
    notes: tuple[str, ...]
    tally: tuple[tuple[Look, int], ...]
    cards: tuple[Card, ...]
    cards_left_out: int
    attention: tuple[int, ...]
    verdicts: tuple[Look, ...]
    suites: tuple[Suite, ...]
    figures: tuple[Figure, ...]
    gate: GatePage | None
    missing: tuple[str, ...]
    groups: tuple[Group, ...]


def build(
    header: RunHeader,
    samples: Sequence[Sample],
    outcome: Outcome | None,
    *,
    figures: Sequence[Figure] = (),
    missing: Sequence[str] = (),
    notes: Sequence[str] = (),
    gate: GatePage | None = None,
) -> Page:
    """Return what a page shows of a run; ``outcome`` None is a run that was not judged.

    Args:
        header: the run.
        samples: its samples.
        outcome: its verdict, if there is one.
        figures: the plots.
        missing: what the run does not have, one sentence each.
        notes: remarks on the run directory, shown beside the outcome's own.
        gate: what is recorded of the gate itself.
    """
    series = summary.worst_first(outcome.series) if outcome else []
    marked = [s for s in series if summary.needs_attention(s)]
    if outcome:
        verdict, line = summary.look(outcome.verdict), summary.headline(outcome)
        notes = [*outcome.notes, *notes]
    else:
        verdict = NOT_JUDGED
        line = (
            f"the run has no verdict, so it passed nothing; {plural(len(samples), 'sample')} "
            "recorded so far. It was interrupted or is still running: resume it"
        )
    by_suite: dict[str, list[SeriesVerdict]] = defaultdict(list)
    for s in series:
        by_suite[s.suite].append(s)
    words = dict.fromkeys(summary.look_of(s) for s in series)
    return Page(
        title=f"msa-bench {clean(header.command, limit=60)}",
        created=clean(header.created, limit=60),
        verdict=verdict,
        headline=line[:1].upper() + line[1:] + ".",
        notes=tuple(clean(note) for note in notes),
        tally=tuple(summary.tally(outcome)) if outcome else (),
        cards=tuple(_card(s) for s in marked[:MAX_CARDS]),
        cards_left_out=max(0, len(marked) - MAX_CARDS),
        attention=tuple(dict.fromkeys(summary.look_of(s).rank for s in marked)),
        verdicts=tuple(words),
        suites=tuple(
            Suite(clean(name, limit=80), plural(len(rows), "series"), tuple(map(_row, rows)))
            for name, rows in by_suite.items()
        ),
        figures=tuple(figures),
        gate=gate,
        missing=tuple(clean(line) for line in missing),
        groups=tuple(_groups(header, samples)),
    )


def _card(s: SeriesVerdict) -> Card:
    return Card(
        look=summary.look_of(s),
        name=clean(s.name, limit=300),
        facts=summary.facts(s),
        note=clean(s.note),
        mde=summary.detectable(s),
        repro=clean(s.repro),
    )


def _cell(text: str, value: float | None) -> Cell:
    return Cell(text, "" if value is None else repr(value))


def _row(s: SeriesVerdict) -> Row:
    marked = summary.needs_attention(s)
    return Row(
        look=summary.look_of(s),
        name=clean(s.name, limit=300),
        note=clean(s.note, limit=300 if marked else 120),
        unit=clean(s.unit, limit=40),
        direction=clean(s.direction, limit=20),
        base=_cell(number(s.base), s.base),
        head=_cell(number(s.head), s.head),
        effect=_cell(summary.effect(s), s.effect),
        interval=summary.interval(s),
        threshold=_cell(summary.bound(s, s.threshold), s.threshold),
        mde=_cell(summary.detectable(s), s.mde),
        n=s.n,
        repro=clean(s.repro),
    )


def _groups(header: RunHeader, samples: Sequence[Sample]) -> Iterator[Group]:
    for subject in ("base", "head"):
        about = header.subjects.get(subject)
        facts = list(_flat("", about)) if about is not None else [("", "not measured")]
        ran: dict[str, set[str]] = defaultdict(set)
        count = 0
        for sample in samples:
            if sample.subject == subject:
                count += 1
                if sample.ran:
                    ran[sample.ran].add(sample.suite)
        facts.append(("samples", f"{count:,}"))
        for name, suites in list(ran.items())[:20]:
            facts.append(("ran", f"{clean(name, limit=200)} ({clean(', '.join(sorted(suites)))})"))
        yield Group(subject.capitalize(), tuple(facts))
    yield Group("Judge", tuple(_flat("", header.judge)) or (("", "not recorded"),))
    about_run: list[tuple[str, str]] = [
        ("command", clean(" ".join(header.argv)) or clean(header.command)),
        ("profile", clean(header.profile)),
        ("seed", str(header.seed)),
    ]
    if "sha256" in header.gates:
        about_run.append(("thresholds", f"sha256 {clean(str(header.gates['sha256']))}"))
    yield Group("Run", tuple(about_run))
    yield Group("Environment", tuple(_flat("", header.environment)) or (("", "not recorded"),))


def _flat(prefix: str, value: object, *, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield ``(name, text)`` for every leaf, names joined by a space."""
    if isinstance(value, Mapping) and depth < 4:
        for key, inner in list(value.items())[:100]:
            name = f"{prefix} {clean(str(key), limit=60)}".strip()
            yield from _flat(name, inner, depth=depth + 1)
    elif isinstance(value, list | tuple):
        yield prefix, clean(", ".join(map(str, value)), limit=500) or "none"
    elif isinstance(value, bool):
        yield prefix, "yes" if value else "no"
    else:
        yield prefix, "not recorded" if value in (None, "") else clean(str(value), limit=500)
