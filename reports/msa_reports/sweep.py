"""A recorded budget sweep (the JSON of ``sweep --json``) and its plots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msa_reports import documents, svg
from msa_reports.documents import Object, count, get, optional_number
from msa_reports.figures import Figure, figure
from msa_reports.scale import Axis
from msa_reports.text import clean, number, share

FILE = "sweep.json"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One scorer at one budget (blocks); None where a value is missing.

    Attributes:
        scorer, budget: which.
        perplexity, perplexity_change: the change is a fraction of dense.
        recall, recall_low, recall_high: share of facts, and its 95 % interval.
        n: facts asked for.
    """

    scorer: str
    budget: int
    perplexity: float | None
    perplexity_change: float | None
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    n: int | None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval of the recall."""
        if self.recall_low is None or self.recall_high is None:
            return None
        return self.recall_low, self.recall_high


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep and what dense attention does on the same items."""

    rows: tuple[SweepRow, ...]
    dense_perplexity: float | None
    dense_recall: float | None


def read_sweep(path: Path) -> Sweep | None:
    """Return the sweep recorded at ``path``, None if there is none.

    Raises:
        RunError: The file is not the JSON of ``sweep --json``; the text names what is wrong.
    """
    return documents.read(path, _sweep)


def _sweep(text: str) -> Sweep:
    document = documents.parse_object(text, of="sweep --json")
    rows = documents.objects(document, "rows")
    dense = documents.as_object("dense", document.get("dense"))
    return Sweep(
        rows=tuple(documents.within(f"rows[{i}]", _row, row) for i, row in enumerate(rows)),
        dense_perplexity=documents.within("dense", optional_number, dense, "perplexity"),
        dense_recall=documents.within("dense", optional_number, dense, "recall"),
    )


def _row(row: Object) -> SweepRow:
    scorer = get(row, "scorer", str)
    if not scorer:
        raise ValueError("scorer: wanted a name, got an empty text")
    return SweepRow(
        scorer=scorer,
        budget=count(row, "budget"),
        n=None if row.get("n") is None else get(row, "n", int),
        perplexity=optional_number(row, "perplexity"),
        perplexity_change=optional_number(row, "perplexity_change"),
        recall=optional_number(row, "recall"),
        recall_low=optional_number(row, "recall_low"),
        recall_high=optional_number(row, "recall_high"),
    )


_COLUMNS = ("scorer", "k", "perplexity", "change", "recall", "95 % interval", "items")
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def _cells(row: SweepRow) -> tuple[str, ...]:
    return (
        clean(row.scorer),
        f"{row.budget}",
        number(row.perplexity),
        share(row.perplexity_change, sign=True),
        number(row.recall),
        "" if row.bounds is None else f"{number(row.bounds[0])} to {number(row.bounds[1])}",
        number(row.n),
    )


def _dense(value: float) -> svg.Rule:
    return svg.Rule(f"dense {number(value)}", value)


def budget_figures(sweep: Sweep) -> list[Figure]:
    """Return recall and perplexity against budget, one line per scorer."""
    scorers = list(dict.fromkeys(row.scorer for row in sweep.rows))
    budgets = tuple(sorted({float(row.budget) for row in sweep.rows}))
    x = Axis("budget k (blocks per query, log scale)", base=2, ticks=budgets)
    rows = [_cells(row) for row in sweep.rows]
    rows.append(
        ("dense", "all", number(sweep.dense_perplexity), "", number(sweep.dense_recall), "", "")
    )

    def lines(field: str) -> tuple[svg.Line, ...]:
        drawn = []
        for slot, scorer in enumerate(scorers):
            points = sorted(
                (float(row.budget), value)
                for row in sweep.rows
                if row.scorer == scorer and (value := getattr(row, field)) is not None
            )
            drawn.append(svg.Line(clean(scorer, limit=60), tuple(points), slot))
        return tuple(drawn)

    def dense(value: float | None) -> tuple[svg.Rule, ...]:
        return () if value is None else (_dense(value),)

    recall = svg.Chart(
        "Recall against budget",
        f"Share of facts recalled at {len(budgets)} budgets by {len(scorers)} scorers.",
        x,
        Axis("recall", include=(0.0, 1.0), ticks=_SHARES),
        lines("recall"),
        dense(sweep.dense_recall),
    )
    perplexity = svg.Chart(
        "Perplexity against budget",
        f"Perplexity at {len(budgets)} budgets by {len(scorers)} scorers.",
        x,
        Axis("perplexity"),
        lines("perplexity"),
        dense(sweep.dense_perplexity),
    )
    return [
        figure(
            recall,
            name="budget-recall",
            caption="Share of facts recalled, by scorer. Higher is better.",
            columns=_COLUMNS,
            rows=rows,
        ),
        figure(
            perplexity,
            name="budget-perplexity",
            caption="Lower is better. Perplexity alone never passes a selector: compare recall.",
            columns=_COLUMNS,
            rows=rows,
        ),
    ]


def scorer_figure(sweep: Sweep) -> Iterator[Figure]:
    """Yield the recall of every scorer at the budget where they differ most; none of one alone."""
    by_budget: dict[int, list[SweepRow]] = {}
    for row in sweep.rows:
        if row.recall is not None:
            by_budget.setdefault(row.budget, []).append(row)
    compared = {budget: rows for budget, rows in by_budget.items() if len(rows) > 1}
    if not compared:
        return

    def spread(budget: int) -> float:
        recalls = [row.recall or 0.0 for row in compared[budget]]
        return max(recalls) - min(recalls)

    budget = max(compared, key=lambda one: (spread(one), -one))
    # As in the curves beside it, a scorer has its own mark.
    slots = {name: i for i, name in enumerate(dict.fromkeys(row.scorer for row in sweep.rows))}
    rows = sorted(compared[budget], key=lambda row: row.recall or 0.0)
    names = [clean(row.scorer, limit=12) for row in rows]
    chart = svg.Chart(
        f"Scorers compared, k = {budget}",
        f"Share of facts recalled by {len(rows)} scorers with a budget of {budget} blocks, with "
        "95 % intervals.",
        Axis(
            "scorer",
            ticks=tuple(map(float, range(len(rows)))),
            show=lambda at: names[int(at)],
            include=(-0.5, len(rows) - 0.5),
        ),
        Axis("recall", include=(0.0, 1.0), ticks=_SHARES),
        tuple(
            svg.Line(
                clean(row.scorer, limit=60),
                ((float(at), row.recall or 0.0),),
                slots[row.scorer],
                bounds=() if row.bounds is None else ((float(at), *row.bounds),),
            )
            for at, row in enumerate(rows)
        ),
        () if sweep.dense_recall is None else (_dense(sweep.dense_recall),),
    )
    yield figure(
        chart,
        name="scorers",
        caption=f"At k = {budget}, the budget where they differ most. Higher is better.",
        columns=_COLUMNS,
        rows=[_cells(row) for row in rows],
    )
