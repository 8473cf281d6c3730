"""A recorded curve of recall and perplexity over budgets, and its plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msa_reports import svg
from msa_reports.documents import Object, count, get, objects, optional_number
from msa_reports.reproduction.layout import Plot, Table
from msa_reports.reproduction.reading import Estimate, estimate, part
from msa_reports.scale import Axis
from msa_reports.text import clean, number, share

#: Of dense recall: a selector below is broken, whatever its perplexity.
BROKEN = 0.5
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One selector at one budget; ``topk`` 0 is dense attention."""

    name: str
    topk: int
    recall: Estimate
    perplexity: float | None
    change: Estimate | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Rows on the same items, and the dense one."""

    length: int
    block: int
    dense: Row
    rows: tuple[Row, ...]

    def at(self, name: str, topk: int) -> Row | None:
        """The row of a selector at a budget, None where it was not measured."""
        return next((r for r in self.rows if (r.name, r.topk) == (name, topk)), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The selectors, in order."""
        return tuple(dict.fromkeys(row.name for row in self.rows))


def read_curve(document: Object) -> Curve:
    """A curve as :mod:`msa_suites` records it, else raise ValueError."""
    return Curve(
        length=count(document, "length"),
        block=count(document, "block"),
        dense=_row(part(document, "dense")),
        rows=tuple(_row(row) for row in objects(document, "rows")),
    )


def _row(row: Object) -> Row:
    return Row(
        name=get(row, "name", str),
        topk=get(row, "topk", int),
        recall=estimate(row, "recall"),
        perplexity=optional_number(row, "perplexity"),
        change=estimate(row, "change") if "change" in row else None,
    )


def recall_text(row: Row | None) -> str:
    """Recall with its interval."""
    return "not measured" if row is None else str(row.recall)


def change_text(row: Row | None) -> str:
    """Change of perplexity with its interval."""
    return "not measured" if row is None or row.change is None else changed(row.change)


def changed(change: Estimate) -> str:
    """A relative change with its interval."""
    text = share(change.value, sign=True)
    if change.bounds is None:
        return text
    low, high = (share(bound, sign=True) for bound in change.bounds)
    return f"{text} ({low} to {high}, n {change.n})"


def numbers(title: str, curve: Curve) -> Table:
    """Every row of a curve."""
    rows = [
        (row.name, f"{row.topk}" if row.topk else "all", recall_text(row), number(row.perplexity),
         change_text(row))
        for row in (curve.dense, *curve.rows)
    ]  # fmt: skip
    return Table(title, ("selector", "k", "recall (95 %)", "perplexity", "change (95 %)"), rows)


def recall_plot(name: str, title: str, curves: Iterable[tuple[str, Curve]], caption: str) -> Plot:
    """Recall against k, one line for each selector of each curve."""
    return _plot(
        name,
        title,
        list(curves),
        lambda row: row.recall,
        Axis("recall", include=(0.0, 1.0), ticks=_SHARES),
        caption,
    )


def change_plot(
    name: str, title: str, curves: Iterable[tuple[str, Curve]], caption: str,
    rules: tuple[svg.Rule, ...] = (),
) -> Plot:  # fmt: skip
    """Change of perplexity against k."""
    axis = Axis("change of perplexity", show=lambda value: share(value, sign=True))
    return _plot(name, title, list(curves), lambda row: row.change, axis, caption, rules)


def _plot(
    name: str,
    title: str,
    curves: list[tuple[str, Curve]],
    value: Callable[[Row], Estimate | None],
    axis: Axis,
    caption: str,
    rules: tuple[svg.Rule, ...] = (),
) -> Plot:
    lines: list[svg.Line] = []
    for prefix, curve in curves:
        for selector in curve.names:
            found = [
                (float(row.topk), one)
                for row in curve.rows
                if row.name == selector and (one := value(row)) is not None
            ]
            bounds = tuple((k, *one.bounds) for k, one in found if one.bounds)
            points = tuple((k, one.value) for k, one in found)
            label = clean(f"{prefix}{selector}", limit=40)
            lines.append(svg.Line(label, points, len(lines), bounds=bounds))
    budgets = sorted({float(row.topk) for _, curve in curves for row in curve.rows})
    chart = svg.Chart(
        title,
        f"{title}, for {len(lines)} lines at {len(budgets)} budgets.",
        Axis("k (blocks per query, log scale)", base=2, ticks=tuple(budgets)),
        axis,
        tuple(lines),
        rules,
    )
    return Plot(name, chart, caption)


def scatter_plot(name: str, title: str, curve: Curve, caption: str, limit: float) -> Plot:
    """Recall against change of perplexity, a selector's budgets joined in order."""
    lines = tuple(
        svg.Line(
            clean(selector, limit=40),
            tuple(
                (row.change.value, row.recall.value)
                for row in curve.rows
                if row.name == selector and row.change is not None
            ),
            slot,
        )
        for slot, selector in enumerate(curve.names)
    )
    chart = svg.Chart(
        title,
        f"{title}: a point for each of {len(curve.rows)} selectors and budgets.",
        Axis("change of perplexity", show=lambda value: share(value, sign=True)),
        Axis("recall", include=(0.0, 1.0), ticks=_SHARES),
        lines,
        (svg.Rule(f"{share(limit, sign=True)}", limit, vertical=True),),
    )
    return Plot(name, chart, caption)
