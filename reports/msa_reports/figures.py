"""A figure of the page: a chart, its legend, and the same numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from msa_reports import svg
from msa_reports.text import clean


@dataclass(frozen=True, slots=True)
class Figure:
    """What the template shows of one plot. ``rows`` hold the numbers of the chart as text."""

    title: str
    caption: str
    chart: Markup
    legend: tuple[tuple[Markup, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figure(
    chart: svg.Chart,
    *,
    name: str,
    caption: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
) -> Figure:
    """Return ``chart`` drawn, with a legend of its lines. ``name`` must be unique on the page."""
    return Figure(
        title=chart.title,
        caption=caption,
        # Built by ElementTree, which escapes every text and attribute.
        chart=Markup(svg.draw(chart, name=name)),
        legend=tuple((Markup(svg.swatch(line.slot)), clean(line.label)) for line in chart.lines),
        columns=columns,
        rows=tuple(rows),
    )
