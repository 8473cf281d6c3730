"""Line charts, histograms and heat maps as small inline SVG.

Drawn here rather than by a plotting library: the result is deterministic, a few kilobytes, takes
its colours from the page (dark mode, print) and carries no style or script of its own, so that
the page's content security policy can forbid both.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree

from msa_reports.scale import Axis, Scale
from msa_reports.shapes import MARKS, attributes_of, mark, shape, text

WIDTH, HEIGHT = 520, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 88, 14, 12, 46


@dataclass(frozen=True, slots=True)
class Line:
    """One series of points.

    Attributes:
        label: for the legend.
        points: ``(x, y)``.
        slot: picks colour, dash and mark, 0 to 7.
        marks: whether points are marked.
        bounds: ``(x, low, high)``, drawn as bars upright.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    slot: int
    marks: bool = True
    bounds: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A reference line across the plot at ``at`` (a y value, or an x value if ``vertical``)."""

    label: str
    at: float
    vertical: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """Histogram bars from ``edges`` (n + 1) and ``counts`` (n), and the ``values`` as a rug."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Heat:
    """Shares from 0 to 1 in cells of one by one, the first row at the top."""

    rows: tuple[tuple[float, ...], ...]

    @property
    def width(self) -> int:
        """Columns."""
        return max(map(len, self.rows), default=0)


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw. ``title`` and ``description`` are what a screen reader says."""

    title: str
    description: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    rules: tuple[Rule, ...] = ()
    bars: Bars | None = None
    heat: Heat | None = None


def draw(chart: Chart, *, name: str) -> str:
    """Return ``chart`` as an ``<svg>`` element; ``name`` must be unique on the page."""
    root = ElementTree.Element(
        "svg",
        attributes_of(
            {
                "class_": "chart",
                "viewBox": f"0 0 {WIDTH} {HEIGHT}",
                "role": "img",
                "aria_labelledby": f"{name}-t {name}-d",
            }
        ),
    )
    for tag, suffix, words in (("title", "t", chart.title), ("desc", "d", chart.description)):
        ElementTree.SubElement(root, tag, {"id": f"{name}-{suffix}"}).text = words

    xs = [p[0] for line in chart.lines for p in line.points]
    ys = [p[1] for line in chart.lines for p in line.points]
    xs += [rule.at for rule in chart.rules if rule.vertical]
    ys += [rule.at for rule in chart.rules if not rule.vertical]
    if chart.bars:
        xs += chart.bars.edges
        ys += [float(max(chart.bars.counts, default=0)), 0.0]
    for line in chart.lines:
        ys += [end for _, *ends in line.bounds for end in ends]
    x = Scale(chart.x, xs, _LEFT, WIDTH - _RIGHT)
    ends = (HEIGHT - _BOTTOM, _TOP)
    y = Scale(chart.y, ys, *(reversed(ends) if chart.heat else ends))

    _frame(root, chart, x, y)
    if chart.heat:
        _heat(root, chart.heat, x, y)
    if chart.bars:
        _bars(root, chart.bars, x, y)
    for i, rule in enumerate(chart.rules):
        _rule(root, rule, x, y, row=i)
    for line in chart.lines:
        _line(root, line, x, y)
    return ElementTree.tostring(root, encoding="unicode")


def _frame(root: ElementTree.Element, chart: Chart, x: Scale, y: Scale) -> None:
    bottom = HEIGHT - _BOTTOM
    for tick in x.ticks():
        shape(root, "path", class_="grid", d=f"M{x(tick):.2f} {_TOP}V{bottom}")
        text(root, chart.x.show(tick), x=x(tick), y=bottom + 17, text_anchor="middle")
    for tick in y.ticks():
        shape(root, "path", class_="grid", d=f"M{_LEFT} {y(tick):.2f}H{WIDTH - _RIGHT}")
        text(root, chart.y.show(tick), x=_LEFT - 7, y=y(tick) + 4, text_anchor="end")
    shape(root, "path", class_="axis", d=f"M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}")
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    text(root, chart.x.label, class_="label", x=middle, y=HEIGHT - 8, text_anchor="middle")
    text(
        root,
        chart.y.label,
        class_="label",
        text_anchor="middle",
        transform=f"translate(14 {(_TOP + bottom) / 2:.2f}) rotate(-90)",
    )


def _bars(root: ElementTree.Element, bars: Bars, x: Scale, y: Scale) -> None:
    for i, count in enumerate(bars.counts):
        left, right, top = x(bars.edges[i]), x(bars.edges[i + 1]), y(count)
        if count:
            wide = max(right - left - 1.0, 1.0)
            shape(root, "rect", class_="bin", x=left, y=top, width=wide, height=y(0) - top)
    for value in bars.values:
        shape(root, "path", class_="rug", d=f"M{x(value):.2f} {y(0):.2f}v-9")


#: Shares from which a cell has one of four shades.
SHADES = (0.0, 0.25, 0.5, 0.75)


def _heat(root: ElementTree.Element, heat: Heat, x: Scale, y: Scale) -> None:
    """One path a shade; cells of a row that have the same shade are one rectangle."""
    place = f"translate({x(0):.2f} {y(0):.2f}) scale({x(1) - x(0):.5f} {y(1) - y(0):.5f})"
    group = ElementTree.SubElement(root, "g", {"transform": place})
    runs: dict[int, list[str]] = {}
    for i, row in enumerate(heat.rows):
        at = 0
        for shade, cells in groupby(bisect_left(SHADES, share) for share in row):
            wide = len(list(cells))
            if shade:
                runs.setdefault(shade, []).append(f"M{at} {i}h{wide}v1h-{wide}z")
            at += wide
    for shade, paths in sorted(runs.items()):
        shape(group, "path", class_=f"h h{shade}", d="".join(paths))


def _rule(root: ElementTree.Element, rule: Rule, x: Scale, y: Scale, *, row: int) -> None:
    if rule.vertical:
        at = x(rule.at)
        shape(root, "path", class_="rule", d=f"M{at:.2f} {_TOP}V{HEIGHT - _BOTTOM}")
        end = at > WIDTH * 0.7
        place = {"x": at - 4 if end else at + 4, "y": _TOP + 12 + 16 * row}
        text(root, rule.label, text_anchor="end" if end else "start", **place)
    else:
        at = y(rule.at)
        shape(root, "path", class_="rule", d=f"M{_LEFT} {at:.2f}H{WIDTH - _RIGHT}")
        above = at > _TOP + 16
        text(root, rule.label, x=_LEFT + 6, y=at - 5 if above else at + 14)


def _line(root: ElementTree.Element, line: Line, x: Scale, y: Scale) -> None:
    group = ElementTree.SubElement(root, "g")
    ElementTree.SubElement(group, "title").text = line.label
    for at, low, high in line.bounds:
        path = f"M{x(at) - 4:.2f} {y(low):.2f}h8m-4 0V{y(high):.2f}m-4 0h8"
        shape(group, "path", class_=f"b s{line.slot % len(MARKS)}", d=path)
    places = [(x(px), y(py)) for px, py in line.points if math.isfinite(py)]
    if len(places) > 1:
        path = "M" + "L".join(f"{px:.2f} {py:.2f}" for px, py in places)
        shape(group, "path", class_=f"l s{line.slot % len(MARKS)}", d=path)
    if line.marks:
        for px, py in places:
            mark(group, line.slot, px, py)
