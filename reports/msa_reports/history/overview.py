"""What the overview of the history shows, as plain records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from msa_harness.verdicts import Verdict
from msa_reports import summary
from msa_reports.history.lines import Line, Step
from msa_reports.history.recordings import Judgement
from msa_reports.history.sparkline import draw
from msa_reports.page import Cell
from msa_reports.summary import Look, natural
from msa_reports.text import clean, number, plural, share

_SHOWN_STEPS = 3
_FIRST = ("quality", "speed", "gpu", "work", "aot")
_LOOKS = {verdict.value: look for verdict, look in summary.LOOKS.items()}
_ALL = Look(9, "HISTORY", "✓", "good", "")
_WORSE = Look(4, "HISTORY", "?", "doubt", "")


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as text, and where it can be looked at (empty: nowhere)."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Change:
    """A step of a series, in the unit and direction of the gate."""

    commit: Commit
    text: str
    tone: str


@dataclass(frozen=True, slots=True)
class Row:
    """One series on one machine."""

    name: str
    graph: str
    unit: str
    direction: str
    value: Cell
    threshold: Cell
    look: Look
    judged: Commit | None
    spark: Markup
    commits: int
    changes: tuple[Change, ...]
    more_changes: int


@dataclass(frozen=True, slots=True)
class Table:
    """The series of one suite on one machine."""

    name: str
    count: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """The whole page."""

    title: str
    verdict: Look
    headline: str
    looks: tuple[Look, ...]
    tables: tuple[Table, ...]


def build(lines: Sequence[Line], *, commit_url: str = "") -> OverviewPage:
    """What the page shows of all lines.

    Args:
        lines: what `lines.lines_of` returns.
        commit_url: what a commit's hash is appended to for a link; empty: no links.
    """
    by_table: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in lines:
        suite = line.track.suite if line.track else line.name.split(".")[0]
        by_table[(*line.facts, suite)].append(line)
    ordered = sorted(by_table.items(), key=lambda item: (item[0][:-1], _place_of(item[0][-1])))
    tables = tuple(_table(key, found, commit_url) for key, found in ordered)
    rows = [row for table in tables for row in table.rows]
    commits = {commit for line in lines for commit, _ in line.values}
    worse = sum(row.look.rank < summary.LOOKS[Verdict.WAIVED].rank for row in rows)
    machines = {line.facts[0] for line in lines}
    text = (
        f"{plural(len(rows), 'series')} over {plural(len(commits), 'commit')} on "
        f"{plural(len(machines), 'machine')}; "
        + (f"{worse} bad at the last verdict." if worse else "none bad at its last verdict.")
    )
    return OverviewPage(
        title="msa-bench: history",
        verdict=_WORSE if worse else _ALL,
        headline=text,
        looks=tuple(sorted({row.look for row in rows}, key=lambda look: look.rank)),
        tables=tables,
    )


def _place_of(suite: str) -> tuple[int, str]:
    """What moves comes first: checks pass, commit after commit."""
    return (_FIRST.index(suite) if suite in _FIRST else len(_FIRST)), suite


def _table(key: tuple[str, ...], lines: Iterable[Line], commit_url: str) -> Table:
    *facts, suite = key
    rows = [_row(line, commit_url) for line in lines]
    rows.sort(key=lambda row: (row.look.rank, not row.changes, natural(row.name)))
    name = f"{suite} on {', '.join(filter(None, facts))}"
    return Table(clean(name, limit=200), plural(len(rows), "series"), tuple(rows))


def _row(line: Line, commit_url: str) -> Row:
    track = line.track
    judgement, judged = line.judged or (None, "")
    name = track.series if track else " ".join(filter(None, (line.name, line.parameter)))
    values = [_back(line, value) for _, value in line.values]
    unit = track.unit if track else line.unit
    # What four digits do not show is rounding.
    steps = [s for s in line.steps if number(_back(line, s.before)) != number(_back(line, s.after))]
    return Row(
        name=clean(name, limit=300),
        graph=f"index.html#{line.name}",
        unit=clean(unit, limit=40),
        direction=track.direction if track else "lower",
        value=Cell(number(values[-1]), repr(values[-1])),
        threshold=_threshold(judgement),
        look=_look(judgement),
        judged=_commit(judged, commit_url) if judged else None,
        spark=draw(values, [_place(line, step) for step in steps], title=_words(values, steps)),
        commits=len(values),
        changes=tuple(_change(line, step, commit_url) for step in steps[: -_SHOWN_STEPS - 1 : -1]),
        more_changes=max(0, len(steps) - _SHOWN_STEPS),
    )


def _look(judgement: Judgement | None) -> Look:
    return _LOOKS.get(judgement.verdict, summary.RECORDED) if judgement else summary.RECORDED


def _threshold(judgement: Judgement | None) -> Cell:
    if judgement is None or judgement.threshold is None:
        return Cell("", "")
    show = share if judgement.relative else number
    return Cell(show(judgement.threshold), repr(judgement.threshold))


def _back(line: Line, value: float) -> float:
    """A value as the gate measures it."""
    return line.track.published(value) if line.track else value


def _place(line: Line, step: Step) -> int:
    return next(i for i, (commit, _) in enumerate(line.values) if commit == step.commit)


def _words(values: Sequence[float], steps: Sequence[Step]) -> str:
    return (
        f"{plural(len(values), 'commit')}, from {number(values[0])} to {number(values[-1])}, "
        f"{plural(len(steps), 'change')}"
    )


def _change(line: Line, step: Step, commit_url: str) -> Change:
    before, after = _back(line, step.before), _back(line, step.after)
    relative = line.judged[0].relative if line.judged else line.track is None
    if relative and before > 0:
        text = share(after / before - 1, sign=True)
    else:
        text = f"{number(before)} → {number(after)}"
    return Change(
        _commit(step.commit, commit_url),
        f"{text}, {'worse' if step.worse else 'better'}",
        "bad" if step.worse else "good",
    )


def _commit(commit: str, url: str) -> Commit:
    return Commit(clean(commit[:8]), url + commit if url else "")
