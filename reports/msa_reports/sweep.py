"""A recorded budget sweep (the JSON of ``sweep --json``) and its plots."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from msa_harness.records import RunError
from msa_reports import svg
from msa_reports.figures import Figure, figure
from msa_reports.scale import Axis
from msa_reports.text import clean, number, share

FILE = "sweep.json"


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One scorer at one budget (blocks); None where a value is missing."""

    scorer: str
    budget: int
    perplexity: float | None
    perplexity_change: float | None
    recall: float | None
    n: int | None


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
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: wanted JSON of `sweep --json`, got {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise RunError(f"{path}: wanted an object with a list 'rows', got {data!r:.80}")
    dense = data.get("dense")
    if not isinstance(dense, dict):
        raise RunError(f"{path}: wanted an object 'dense', got {dense!r:.80}")
    return Sweep(
        rows=tuple(_row(path, i, row) for i, row in enumerate(data["rows"])),
        dense_perplexity=optional_number(path, "dense.perplexity", dense.get("perplexity")),
        dense_recall=optional_number(path, "dense.recall", dense.get("recall")),
    )


def _row(path: Path, index: int, row: object) -> SweepRow:
    where = f"rows[{index}]"
    if not isinstance(row, dict):
        raise RunError(f"{path}: {where}: wanted an object, got {row!r:.80}")
    scorer, budget, n = row.get("scorer"), row.get("budget"), row.get("n")
    if not isinstance(scorer, str) or not scorer:
        raise RunError(f"{path}: {where}.scorer: wanted a name, got {scorer!r:.80}")
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise RunError(f"{path}: {where}.budget: wanted a positive integer, got {budget!r:.80}")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int)):
        raise RunError(f"{path}: {where}.n: wanted an integer, got {n!r:.80}")
    return SweepRow(
        scorer=scorer,
        budget=budget,
        perplexity=optional_number(path, f"{where}.perplexity", row.get("perplexity")),
        perplexity_change=optional_number(
            path, f"{where}.perplexity_change", row.get("perplexity_change")
        ),
        recall=optional_number(path, f"{where}.recall", row.get("recall")),
        n=n,
    )


def optional_number(path: Path, name: str, value: object) -> float | None:
    """Return ``value`` as a finite float, None for None.

    Raises:
        RunError: Something else came; the text names ``path`` and ``name``.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RunError(f"{path}: {name}: wanted a finite number or null, got {value!r:.80}")
    return float(value)


def budget_figures(sweep: Sweep) -> list[Figure]:
    """Return recall and perplexity against budget, one line per scorer."""
    scorers = list(dict.fromkeys(row.scorer for row in sweep.rows))
    budgets = tuple(sorted({float(row.budget) for row in sweep.rows}))
    x = Axis("budget k (blocks per query, log scale)", base=2, ticks=budgets)
    columns = ("scorer", "k", "perplexity", "change", "recall", "items")
    rows = [
        (
            clean(row.scorer),
            f"{row.budget}",
            number(row.perplexity),
            share(row.perplexity_change, sign=True),
            number(row.recall),
            number(row.n),
        )
        for row in sweep.rows
    ]
    rows.append(
        ("dense", "all", number(sweep.dense_perplexity), "", number(sweep.dense_recall), "")
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
        return () if value is None else (svg.Rule(f"dense {number(value)}", value),)

    recall = svg.Chart(
        "Recall against budget",
        f"Share of facts recalled at {len(budgets)} budgets by {len(scorers)} scorers.",
        x,
        Axis("recall", include=(0.0, 1.0), ticks=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
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
            columns=columns,
            rows=rows,
        ),
        figure(
            perplexity,
            name="budget-perplexity",
            caption="Lower is better. Perplexity alone never passes a selector: compare recall.",
            columns=columns,
            rows=rows,
        ),
    ]
