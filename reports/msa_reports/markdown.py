"""The outcome of a run as Markdown, for a comment on a change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msa_harness.verdicts import Outcome, SeriesVerdict
from msa_reports import summary
from msa_reports.speedups import COLUMNS
from msa_reports.text import clean, log_safe, markdown, markdown_code, number, plural

LIMIT = 60_000  # characters; a comment on GitHub may have 65,536
MARKER = "<!-- msa-bench report -->"  # by which a bot finds its own comment again
_HEAD = (
    "| verdict | series | unit | better | base | head | effect | interval | threshold | MDE | n |\n"
    "|---|---|---|---|--:|--:|--:|---|--:|--:|--:|\n"
)
_TAIL_RESERVE = 1_500
_MOST_SPEEDUPS = 20
_TABLE_SHARE = 0.5  # of what is left, for the table of what needs attention


def render(
    outcome: Outcome,
    *,
    subjects: Sequence[str] = (),
    speedups: Sequence[tuple[str, ...]] = (),
    limit: int = LIMIT,
) -> str:
    """Return ``outcome`` as GitHub Markdown of at most ``limit`` characters.

    Worst first; what does not fit is counted. Everything a subject could have named (series,
    notes, commands) is shown as text and nothing else.

    Args:
        outcome: what to show.
        subjects: one line each, such as "base 1a2b3c4"; shown under the verdict.
        speedups: cells of `speedups.table`.
        limit: largest length, at least 4000.

    Raises:
        ValueError: ``limit`` is below 4000.
    """
    if limit < 4000:
        raise ValueError(f"limit must be at least 4000 characters, got {limit}")
    verdict = summary.look(outcome.verdict)
    text = f"{MARKER}\n## {verdict.mark} {verdict.word}: {markdown(summary.headline(outcome))}\n\n"
    notes = [*subjects, *outcome.notes]
    text += "".join(f"- {markdown(note, limit=300)}\n" for note in notes[:20])
    if len(notes) > 20:
        text += f"- and {plural(len(notes) - 20, 'more note')}\n"
    series = summary.worst_first(outcome.series)
    marked = [s for s in series if summary.needs_attention(s)]
    rest = [s for s in series if not summary.needs_attention(s)]

    budget = limit - len(text) - _TAIL_RESERVE
    if marked:
        room = int(budget * _TABLE_SHARE)
        rows, left_out = _fill(marked, _row, room)
        text += f"\n### What needs a look\n\n{_HEAD}{rows}{_left_out(left_out)}"
        room = limit - len(text) - _TAIL_RESERVE - (2_000 if rest else 0)
        details, left_out = _fill(marked, _detail, room)
        text += f"\n### Why, and how to repeat it\n\n{details}{_left_out(left_out)}"
    if rest:
        room = limit - len(text) - _TAIL_RESERVE
        rows, left_out = _fill(rest, _row, room)
        text += (
            f"\n<details><summary>{plural(len(rest), 'series')} without complaint</summary>\n\n"
            f"{_HEAD}{rows}{_left_out(left_out)}\n</details>\n"
        )
    if speedups and len(text) < limit - 2 * _TAIL_RESERVE:
        text += f"\n### MSA against dense attention\n\n{_speedups(speedups)}"
    counts = ", ".join(f"{n:,} {markdown(each.word)}" for each, n in summary.tally(outcome))
    text += f"\n{counts or 'No series'}. Effect: positive is worse; MDE: smallest effect this run "
    text += "could detect.\n"
    return "\n".join(log_safe(line) for line in text.split("\n"))


def _speedups(rows: Sequence[tuple[str, ...]]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *([markdown(cell) for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines[:_MOST_SPEEDUPS])


def _fill(
    series: Sequence[SeriesVerdict], show: Callable[[SeriesVerdict], str], room: int
) -> tuple[str, int]:
    """Return as many shown series as fit in ``room`` characters, and how many do not."""
    shown = ""
    for i, s in enumerate(series):
        piece = show(s)
        if len(shown) + len(piece) > room:
            return shown, len(series) - i
        shown += piece
    return shown, 0


def _left_out(count: int) -> str:
    return f"\n{plural(count, 'series')} left out here for length.\n" if count else ""


def _row(s: SeriesVerdict) -> str:
    each = summary.look_of(s)
    cells = (
        f"{each.mark} {markdown(each.word)}",
        markdown_code(s.name, limit=160),
        markdown(s.unit, limit=40),
        markdown(s.direction, limit=10),
        number(s.base),
        number(s.head),
        markdown(summary.effect(s)),
        markdown(summary.interval(s)),
        summary.bound(s, s.threshold),
        summary.detectable(s),
        f"{s.n:,}",
    )
    return "| " + " | ".join(cells) + " |\n"


def _detail(s: SeriesVerdict) -> str:
    each = summary.look_of(s)
    text = f"**{markdown(each.word)}** {markdown_code(s.name, limit=160)}  \n"
    text += f"{markdown(summary.facts(s))}\n"
    if s.note:
        text += f"\nWhy: {markdown(s.note, limit=1000)}\n"
    if s.repro:
        command = clean(s.repro, limit=600)
        fence = "```"
        while fence in command:
            fence += "`"
        text += f"\n{fence}sh\n{command}\n{fence}\n"
    return text + "\n"
