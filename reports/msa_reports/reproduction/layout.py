"""A section of the document as data, and its Markdown.

What a section's author writes is Markdown; what comes from the data is text and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from msa_reports.svg import Chart
from msa_reports.text import markdown, markdown_code


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published figure beside ours."""

    what: str
    published: str
    setting: str
    ours: str
    why: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart and the name of its file, without suffix."""

    name: str
    chart: Chart
    caption: str


@dataclass(frozen=True, slots=True)
class Table:
    """Raw numbers, as text; ``shut``: a reader opens it by a click."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    shut: bool = True


@dataclass(frozen=True, slots=True)
class Section:
    """What a section says.

    Attributes:
        title: its heading.
        claim: what the documents claim, in plain words, with their names.
        method: what was measured here.
        comparisons: published figures beside ours.
        plots: drawn each in a file of its own.
        tables: the raw numbers.
        meaning: what follows for someone who builds with it.
    """

    title: str
    claim: str
    method: str
    comparisons: tuple[Comparison, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    meaning: str = ""


_COMPARED = ("what", "published", "its setting", "ours", "why they differ")
#: Plots of this count or more stand two in a row.
_MANY = 3


def anchor(title: str) -> str:
    """The anchor that GitHub gives to a heading of letters, digits, spaces and hyphens."""
    return "".join(c for c in title.lower() if c.isalnum() or c in " -").replace(" ", "-")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *([markdown(one) for one in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def render(section: Section, *, folder: str, command: str) -> str:
    """The Markdown of a section whose plots lie in ``folder``."""
    return "\n".join(_parts(section, folder, command))


def heading(title: str) -> str:
    return f"## {title}\n"


def _parts(section: Section, folder: str, command: str) -> Iterator[str]:
    yield heading(section.title)
    yield f"**The claim.** {section.claim}\n"
    yield f"**Measured here.** {section.method}\n"
    if section.comparisons:
        rows = [(one.what, one.published, one.setting, one.ours, one.why)
                for one in section.comparisons]  # fmt: skip
        yield table(_COMPARED, rows)
    if len(section.plots) >= _MANY:
        yield from _grid(section.plots, folder)
    else:
        for plot in section.plots:
            yield f"{_picture(plot, folder)}\n\n{markdown(plot.caption)}\n"
    for one in section.tables:
        body = table(one.columns, one.rows)
        if one.shut:
            body = f"<details><summary>{markdown(one.title)}</summary>\n\n{body}\n</details>\n"
        yield body
    if section.meaning:
        yield f"**For a builder.** {section.meaning}\n"
    yield f"On its own, into a folder of its own: {markdown_code(command)}\n"


def _grid(plots: Sequence[Plot], folder: str) -> Iterator[str]:
    lines = ["| | |", "|---|---|"]
    for at in range(0, len(plots), 2):
        cells = [
            f"{_picture(one, folder)}<br>{markdown(one.caption)}" for one in plots[at : at + 2]
        ]
        lines.append("| " + " | ".join([*cells, ""][:2]) + " |")
    yield "\n".join(lines) + "\n"


def _picture(plot: Plot, folder: str) -> str:
    return f"![{markdown(plot.chart.title)}]({quote(folder)}/{quote(plot.name)}.svg)"
