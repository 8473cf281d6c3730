"""Line charts and histograms as small inline SVG.

Drawn here rather than by a plotting library: the result is deterministic, a few kilobytes, takes
its colours from the page (dark mode, print) and carries no style or script of its own, so that
the page's content security policy can forbid both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

from msa_reports.scale import Axis, Scale

WIDTH, HEIGHT = 520, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 88, 14, 12, 46
MARKS = ("circle", "square", "triangle", "diamond", "cross", "plus", "ring", "bar")


@dataclass(frozen=True, slots=True)
class Line:
    """One series of points ``(x, y)``; ``slot`` picks colour, dash and mark (0 to 7)."""

    label: str
    points: tuple[tuple[float, float], ...]
    slot: int
    marks: bool = True


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
class Chart:
    """What to draw. ``title`` and ``description`` are what a screen reader says."""

    title: str
    description: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    rules: tuple[Rule, ...] = ()
    bars: Bars | None = None


def _text(parent: ElementTree.Element, text: str, **attributes: object) -> None:
    node = ElementTree.SubElement(parent, "text", _attributes(attributes))
    node.text = text


def _attributes(attributes: dict[str, object]) -> dict[str, str]:
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    return {
        name: f"{value:.2f}" if isinstance(value, float) else str(value)
        for name, value in named.items()
    }


def _shape(parent: ElementTree.Element, tag: str, **attributes: object) -> None:
    ElementTree.SubElement(parent, tag, _attributes(attributes))


def _mark(parent: ElementTree.Element, slot: int, x: float, y: float) -> None:
    kind, name = MARKS[slot % len(MARKS)], f"m s{slot % len(MARKS)}"
    if kind in ("circle", "ring"):
        open_mark = " open" if kind == "ring" else ""
        _shape(parent, "circle", class_=name + open_mark, cx=x, cy=y, r=4.5)
        return
    path = {
        "square": "M-4-4h8v8h-8z",
        "triangle": "M0-5.5 5 4h-10z",
        "diamond": "M0-6 5 0 0 6-5 0z",
        "cross": "M-4-4 4 4M-4 4 4-4",
        "plus": "M-5 0h10M0-5v10",
        "bar": "M-5-2h10v4h-10z",
    }[kind]
    _shape(parent, "path", class_=name, d=path, transform=f"translate({x:.2f} {y:.2f})")


def swatch(slot: int) -> str:
    """Return the legend's picture of a line: its dash and its mark, hidden from readers."""
    root = ElementTree.Element(
        "svg",
        _attributes({"class_": "swatch", "viewBox": "0 0 34 14", "aria_hidden": "true"}),
    )
    _shape(root, "path", class_=f"l s{slot % len(MARKS)}", d="M1 7H33")
    _mark(root, slot, 17.0, 7.0)
    return ElementTree.tostring(root, encoding="unicode")


def draw(chart: Chart, *, name: str) -> str:
    """Return ``chart`` as an ``<svg>`` element; ``name`` must be unique on the page."""
    root = ElementTree.Element(
        "svg",
        _attributes(
            {
                "class_": "chart",
                "viewBox": f"0 0 {WIDTH} {HEIGHT}",
                "role": "img",
                "aria_labelledby": f"{name}-t {name}-d",
            }
        ),
    )
    for tag, suffix, text in (("title", "t", chart.title), ("desc", "d", chart.description)):
        ElementTree.SubElement(root, tag, {"id": f"{name}-{suffix}"}).text = text

    xs = [p[0] for line in chart.lines for p in line.points]
    ys = [p[1] for line in chart.lines for p in line.points]
    xs += [rule.at for rule in chart.rules if rule.vertical]
    ys += [rule.at for rule in chart.rules if not rule.vertical]
    if chart.bars:
        xs += chart.bars.edges
        ys += [float(max(chart.bars.counts, default=0)), 0.0]
    x = Scale(chart.x, xs, _LEFT, WIDTH - _RIGHT)
    y = Scale(chart.y, ys, HEIGHT - _BOTTOM, _TOP)

    _frame(root, chart, x, y)
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
        _shape(root, "path", class_="grid", d=f"M{x(tick):.2f} {_TOP}V{bottom}")
        _text(root, chart.x.show(tick), x=x(tick), y=bottom + 17, text_anchor="middle")
    for tick in y.ticks():
        _shape(root, "path", class_="grid", d=f"M{_LEFT} {y(tick):.2f}H{WIDTH - _RIGHT}")
        _text(root, chart.y.show(tick), x=_LEFT - 7, y=y(tick) + 4, text_anchor="end")
    _shape(root, "path", class_="axis", d=f"M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}")
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    _text(root, chart.x.label, class_="label", x=middle, y=HEIGHT - 8, text_anchor="middle")
    _text(
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
            _shape(root, "rect", class_="bin", x=left, y=top, width=wide, height=y(0) - top)
    for value in bars.values:
        _shape(root, "path", class_="rug", d=f"M{x(value):.2f} {y(0):.2f}v-9")


def _rule(root: ElementTree.Element, rule: Rule, x: Scale, y: Scale, *, row: int) -> None:
    if rule.vertical:
        at = x(rule.at)
        _shape(root, "path", class_="rule", d=f"M{at:.2f} {_TOP}V{HEIGHT - _BOTTOM}")
        end = at > WIDTH * 0.7
        place = {"x": at - 4 if end else at + 4, "y": _TOP + 12 + 16 * row}
        _text(root, rule.label, text_anchor="end" if end else "start", **place)
    else:
        at = y(rule.at)
        _shape(root, "path", class_="rule", d=f"M{_LEFT} {at:.2f}H{WIDTH - _RIGHT}")
        above = at > _TOP + 16
        _text(root, rule.label, x=_LEFT + 6, y=at - 5 if above else at + 14)


def _line(root: ElementTree.Element, line: Line, x: Scale, y: Scale) -> None:
    group = ElementTree.SubElement(root, "g")
    ElementTree.SubElement(group, "title").text = line.label
    places = [(x(px), y(py)) for px, py in line.points if math.isfinite(py)]
    if len(places) > 1:
        path = "M" + "L".join(f"{px:.2f} {py:.2f}" for px, py in places)
        _shape(group, "path", class_=f"l s{line.slot % len(MARKS)}", d=path)
    if line.marks:
        for px, py in places:
            _mark(group, line.slot, px, py)
