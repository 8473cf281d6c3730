"""The elements that charts are made of, and the mark of each line."""

from __future__ import annotations

from xml.etree import ElementTree

MARKS = ("circle", "square", "triangle", "diamond", "cross", "plus", "ring", "bar")


def text(parent: ElementTree.Element, words: str, **attributes: object) -> None:
    """Add a text; a trailing underscore in a name goes, others become hyphens."""
    node = ElementTree.SubElement(parent, "text", attributes_of(attributes))
    node.text = words


def attributes_of(attributes: dict[str, object]) -> dict[str, str]:
    """Return attributes as SVG writes them."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    return {
        name: f"{value:.2f}" if isinstance(value, float) else str(value)
        for name, value in named.items()
    }


def shape(parent: ElementTree.Element, tag: str, **attributes: object) -> None:
    """Add a shape; names as for :func:`text`."""
    ElementTree.SubElement(parent, tag, attributes_of(attributes))


def mark(parent: ElementTree.Element, slot: int, x: float, y: float) -> None:
    """Add the mark of a line at a place in pixels."""
    kind, name = MARKS[slot % len(MARKS)], f"m s{slot % len(MARKS)}"
    if kind in ("circle", "ring"):
        open_mark = " open" if kind == "ring" else ""
        shape(parent, "circle", class_=name + open_mark, cx=x, cy=y, r=4.5)
        return
    path = {
        "square": "M-4-4h8v8h-8z",
        "triangle": "M0-5.5 5 4h-10z",
        "diamond": "M0-6 5 0 0 6-5 0z",
        "cross": "M-4-4 4 4M-4 4 4-4",
        "plus": "M-5 0h10M0-5v10",
        "bar": "M-5-2h10v4h-10z",
    }[kind]
    shape(parent, "path", class_=name, d=path, transform=f"translate({x:.2f} {y:.2f})")


def swatch(slot: int, *, marked: bool = True) -> str:
    """Return the legend's picture of a line: its dash and its mark, hidden from readers."""
    root = _hidden("swatch", wide=34)
    shape(root, "path", class_=f"l s{slot % len(MARKS)}", d="M1 7H33")
    if marked:
        mark(root, slot, 17.0, 7.0)
    return ElementTree.tostring(root, encoding="unicode")


def shade_swatch(shade: int) -> str:
    """Return the legend's picture of a shade of a heat map, hidden from readers."""
    root = _hidden("swatch shade", wide=14)
    shape(root, "path", class_=f"h h{shade}", d="M0 0h14v14h-14z")
    return ElementTree.tostring(root, encoding="unicode")


def _hidden(kind: str, *, wide: int) -> ElementTree.Element:
    attributes: dict[str, object] = {
        "class_": kind,
        "viewBox": f"0 0 {wide} 14",
        "aria_hidden": "true",
    }
    return ElementTree.Element("svg", attributes_of(attributes))
