"""A figure of the page: a chart, its legend, and the same numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from msa_reports import svg
from msa_reports.shapes import shade_swatch, swatch
from msa_reports.text import clean, share


@dataclass(frozen=True, slots=True)
class Figure:
    """What the template shows of one plot.

    Attributes:
        title, caption: texts.
        chart: an ``<svg>``.
        legend: a picture and a text for each line, or each shade.
        columns, rows: the numbers of the chart as text.
        group: heading of those that it stands with, smaller; empty: it stands alone.
    """

    title: str
    caption: str
    chart: Markup
    legend: tuple[tuple[Markup, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    group: str = ""


def figure(
    chart: svg.Chart,
    *,
    name: str,
    caption: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    group: str = "",
) -> Figure:
    """Return ``chart`` drawn, with a legend. ``name`` must be unique on the page."""
    legend = [
        (Markup(swatch(line.slot, marked=line.marks)), clean(line.label)) for line in chart.lines
    ]
    if chart.heat:
        legend = [
            (Markup(shade_swatch(shade)), f"{share(start)} to {share(end)}")
            for shade, (start, end) in enumerate(pairwise((*svg.SHADES, 1.0)), start=1)
        ]
    return Figure(
        title=chart.title,
        caption=caption,
        # Built by ElementTree, which escapes every text and attribute.
        chart=Markup(svg.draw(chart, name=name)),
        legend=tuple(legend),
        columns=columns,
        rows=tuple(rows),
        group=group,
    )
