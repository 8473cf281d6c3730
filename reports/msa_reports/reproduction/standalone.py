"""A chart as a file of its own: style and legend inside, light and dark, nothing loaded."""

from __future__ import annotations

from functools import cache
from importlib import resources
from itertools import pairwise
from xml.etree import ElementTree

from msa_reports import svg
from msa_reports.shapes import mark, shape, text
from msa_reports.text import clean, share

_ROW, _PAD = 20, 10
_COLUMNS = 2


@cache
def _style() -> str:
    return (resources.files("msa_reports") / "templates" / "chart.css").read_text(encoding="utf-8")


def standalone(chart: svg.Chart, *, name: str) -> str:
    """Return ``chart`` as an SVG document with its legend below the axes."""
    root = ElementTree.fromstring(svg.draw(chart, name=name))
    lines = list(dict.fromkeys((clean(line.label), line.slot, line.marks) for line in chart.lines))
    shades = list(pairwise((*svg.SHADES, 1.0))) if chart.heat else []
    rows = -(-max(len(lines), len(shades)) // _COLUMNS)
    height = svg.HEIGHT + rows * _ROW + (_PAD if rows else 0)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("viewBox", f"0 0 {svg.WIDTH} {height}")
    root.set("width", str(svg.WIDTH))
    root.set("height", str(height))
    style = ElementTree.Element("style")
    style.text = _style()
    back = ElementTree.Element("rect", {"class": "card", "width": "100%", "height": "100%"})
    root[0:0] = [style, back]
    for at, (label, slot, marked) in enumerate(lines):
        x, y = _place(at)
        shape(root, "path", class_=f"l s{slot % 8}", d=f"M{x} {y}h32")
        if marked:
            mark(root, slot, x + 16.0, y)
        text(root, label, class_="label", x=x + 40, y=y + 4)
    for at, (start, end) in enumerate(shades):
        x, y = _place(at)
        shape(root, "path", class_=f"h h{at + 1}", d=f"M{x} {y - 7}h14v14h-14z")
        text(root, f"{share(start)} to {share(end)}", class_="label", x=x + 22, y=y + 4)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _place(at: int) -> tuple[float, float]:
    column, row = at % _COLUMNS, at // _COLUMNS
    return 20.0 + column * svg.WIDTH / _COLUMNS, svg.HEIGHT + _PAD / 2 + row * _ROW
