"""A line of values as small as a word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from markupsafe import Markup

WIDTH, HEIGHT, _PAD = 150, 30, 5


def draw(values: Sequence[float], changes: Iterable[int], *, title: str) -> Markup:
    """An ``<svg>`` of the values in order, with a rule at each change and a mark at the last value.

    Args:
        values: at least one.
        changes: places in ``values`` where a new level begins.
        title: what a screen reader says.
    """
    low, high = min(values), max(values)
    # A thousandth fills the height at most: rounding is flat.
    spread = max(high - low, 1e-3 * max(abs(low), abs(high))) or 1.0
    step = (WIDTH - 2 * _PAD) / max(len(values) - 1, 1)

    def x(i: int) -> float:
        return _PAD + i * step if len(values) > 1 else WIDTH / 2

    def y(value: float) -> float:
        part = 0.5 + (value - (low + high) / 2) / spread
        return HEIGHT - _PAD - part * (HEIGHT - 2 * _PAD)

    root = ElementTree.Element(
        "svg",
        {
            "width": str(WIDTH), "height": str(HEIGHT), "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "role": "img", "aria-label": title,
        },
    )  # fmt: skip
    for place in changes:
        at = x(place) - (step / 2 if len(values) > 1 else 0)
        ElementTree.SubElement(root, "path", {"class": "rule", "d": f"M{at:.1f} 1V{HEIGHT - 1}"})
    points = [f"{x(i):.1f} {y(value):.1f}" for i, value in enumerate(values)]
    if len(points) > 1:
        ElementTree.SubElement(root, "path", {"class": "l s0", "d": "M" + "L".join(points)})
    last_x, last_y = points[-1].split()
    ElementTree.SubElement(
        root, "circle", {"class": "m s0", "cx": last_x, "cy": last_y, "r": "2.5"}
    )
    # Built by ElementTree, which escapes every text and attribute.
    return Markup(ElementTree.tostring(root, encoding="unicode"))
