"""Plots of the ablations: paired differences as dots, and gradient norms over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msa_reports import svg
from msa_reports.reproduction.ablations_reading import Gradients, Row
from msa_reports.reproduction.layout import Plot
from msa_reports.scale import Axis
from msa_reports.text import clean

#: Names that fit beside an axis.
_SHORT: Mapping[str, str] = {
    "no_warmup": "no warm-up",
    "no_detach": "no detach",
    "no_detach_10": "no det., 10",
    "no_detach_100": "no det., 100",
    "lambda_100": "lambda 100",
    "no_local": "no local",
    "sink_window": "sink+win.",
    "value_head": "value head",
}

#: Of the largest difference: what is nearer to the base cannot be told apart beside it.
_NEAR = 0.2


def _short(name: str) -> str:
    return _SHORT.get(name, clean(name, limit=12))


def differences_plots(rows: Sequence[Row]) -> tuple[Plot, ...]:
    """A row of dots for each comparison, one dot a seed; a run that diverged has none.

    Where a few are far out, those near the base have a plot of their own beside the one of all.
    """
    plots = [_differences("ablations-differences", rows, "all")]
    far = max((_reach(row) for row in rows), default=0.0)
    near = [row for row in rows if _values(row) and _reach(row) <= _NEAR * far]
    if len(near) > 1:
        plots.append(_differences("ablations-near", near, "those near the base"))
    return tuple(plots)


def _values(row: Row) -> list[float]:
    found = row.differences.get("text_nll")
    return [] if found is None else sorted(one for one in found.values if one is not None)


def _reach(row: Row) -> float:
    return max(map(abs, _values(row)), default=0.0)


def _differences(name: str, rows: Sequence[Row], which: str) -> Plot:
    names = [_short(row.name) for row in rows]
    heights = [float(len(rows) - at) for at in range(len(rows))]
    known = list(_SHORT)  # the same colour in both plots
    lines = tuple(
        svg.Line(
            names[at],
            tuple((value, heights[at]) for value in _values(row)),
            known.index(row.name) if row.name in known else at,
        )
        for at, row in enumerate(rows)
    )
    chart = svg.Chart(
        f"Nats per byte of text, less the base's of the same seed: {which}",
        f"One dot a seed for each of {len(rows)} ablations; to the right of 0 is worse.",
        Axis("difference (nats per byte)", show=lambda value: f"{value:+.3g}" if value else "0"),
        Axis("", ticks=tuple(heights), show=lambda value: names[len(names) - round(value)]),
        lines,
        (svg.Rule("", 0.0, vertical=True),),
    )
    caption = f"One dot a seed, {which}. To the right of the line is worse than the base."
    return Plot(name, chart, caption)


def gradient_plot(found: Sequence[Gradients]) -> Plot:
    """Norms of the model's gradient before clipping, step by step, of the first seed."""
    lines = tuple(
        svg.Line(
            _short(one.name),
            tuple((float(step), norm) for step, norm in enumerate(one.first, start=1)),
            slot,
            marks=False,
        )
        for slot, one in enumerate(found)
    )
    chart = svg.Chart(
        "Norm of the model's gradient before clipping, first seed",
        f"Step by step for {len(found)} runs, with the loss detached and not.",
        Axis("step"),
        Axis("norm (log scale)", base=10),
        lines,
        (svg.Rule("", 1.0),),
    )
    return Plot("ablations-gradients", chart, "Above the dotted line it was clipped.")
