"""The outcome of a run as a table in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import StringIO
from typing import TextIO

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from msa_harness.verdicts import Outcome, SeriesVerdict
from msa_reports import summary
from msa_reports.speedups import COLUMNS
from msa_reports.text import clean, log_safe, number

TABLE_WIDTH = 130  # narrower than this, each series is a paragraph
LOG_WIDTH = 150  # where nobody looks at a terminal, as in a log
_STYLES = {
    "bad": "bold red",
    "broken": "bold magenta",
    "doubt": "yellow",
    "plain": "cyan",
    "good": "green",
}


def print_outcome(outcome: Outcome, *, stream: TextIO, width: int | None = None) -> None:
    """Print ``outcome`` to ``stream``, the verdict first and the worst series before the rest.

    Colour appears only on a terminal (and never under ``NO_COLOR``). Without a terminal the lines
    are wide, as a log wraps them itself. Characters the stream cannot encode are spelled out.

    Args:
        outcome: what to print.
        stream: where to print it, usually ``sys.stdout``.
        width: columns; default: those of the terminal, or 150 where there is none.
    """
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    if width is None:
        width = console.width if console.is_terminal else LOG_WIDTH
    encoding = getattr(stream, "encoding", None) or "utf-8"
    drawn = StringIO()
    painter = Console(
        file=drawn,
        width=max(width, 40),
        highlight=False,
        emoji=False,
        markup=False,
        force_terminal=console.is_terminal,
        color_system="standard" if console.is_terminal and not console.no_color else None,
    )
    _paint(outcome, painter)
    text = "\n".join(log_safe(line.rstrip()) for line in drawn.getvalue().splitlines())
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def print_speedups(rows: Sequence[tuple[str, ...]], *, stream: TextIO) -> None:
    """Print cells of `speedups.table`, nothing where there are none."""
    if not rows:
        return
    table = Table(title="MSA against dense attention, turn against turn", box=box.MARKDOWN)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("dtype", "overlap") else "right")
    for row in rows:
        table.add_row(*row)
    Console(file=stream, highlight=False, emoji=False, markup=False, width=LOG_WIDTH).print(table)


def _paint(outcome: Outcome, console: Console) -> None:
    verdict = summary.look(outcome.verdict)
    first = Text(f"{verdict.word}: {summary.headline(outcome)}", style=_STYLES[verdict.tone])
    console.print(first, soft_wrap=True)
    for note in outcome.notes:
        console.print(Text(f"note: {clean(note)}"), soft_wrap=True)
    series = summary.worst_first(outcome.series)
    if not series:
        return
    console.print()
    if console.width >= TABLE_WIDTH:
        console.print(_table(series))
    else:
        for s in series:
            _paragraph(s, console)
    marked = [s for s in series if summary.needs_attention(s)]
    if marked and console.width >= TABLE_WIDTH:
        console.print()
        # Many series often share one reason and one command.
        alike: dict[tuple[str, ...], list[SeriesVerdict]] = {}
        for s in marked:
            alike.setdefault((s.verdict, *_lines(s)), []).append(s)
        for same in alike.values():
            for s in same:
                console.print(_title(s), soft_wrap=True)
            _more(same[0], console)
    counts = ", ".join(f"{n:,} {each.word}" for each, n in summary.tally(outcome))
    console.print()
    console.print(Text(f"{counts}. Effect: positive is worse."), soft_wrap=True)


def _table(series: list[SeriesVerdict]) -> Table:
    # Borders on the outside: a wrapped cell must never begin a line of its own.
    table = Table(show_lines=False, pad_edge=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("series", overflow="fold", min_width=24)
    table.add_column("unit", overflow="fold")
    table.add_column("better", no_wrap=True)
    for name in ("base", "head"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("effect [interval]", overflow="fold", min_width=14)
    table.add_column("threshold", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for s in series:
        each = summary.look_of(s)
        table.add_row(
            Text(each.word, style=_STYLES[each.tone]),
            Text(clean(s.name, limit=200)),
            Text(clean(s.unit, limit=40)),
            Text(clean(s.direction, limit=10)),
            Text(number(s.base)),
            Text(number(s.head)),
            Text(f"{summary.effect(s)} {summary.interval(s)}".strip()),
            Text(summary.bound(s, s.threshold)),
            Text(f"{s.n:,}"),
        )
    return table


def _title(s: SeriesVerdict) -> Text:
    each = summary.look_of(s)
    return Text.assemble((each.word, _STYLES[each.tone]), "  ", clean(s.name, limit=200))


def _paragraph(s: SeriesVerdict, console: Console) -> None:
    console.print(_title(s), soft_wrap=True)
    console.print(Padding(Text(summary.facts(s)), (0, 0, 0, 4)))
    if summary.needs_attention(s):
        _more(s, console)


def _more(s: SeriesVerdict, console: Console) -> None:
    for line in _lines(s):
        # Not wrapped: a command is there to be copied.
        console.print(Text("    " + line), soft_wrap=True)


def _lines(s: SeriesVerdict) -> Iterator[str]:
    if s.note:
        yield f"why: {clean(s.note)}"
    if s.mde is not None:
        yield f"smallest effect this run could detect: {summary.detectable(s)}"
    if s.repro:
        yield f"repeat: {clean(s.repro)}"
