"""Power curves: how often the gate finds an effect, by its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msa_reports import svg
from msa_reports.evidence import Calibration, Power
from msa_reports.figures import Figure, figure
from msa_reports.scale import Axis
from msa_reports.text import clean, plural, share

#: Lines of one plot that can still be told apart.
_MOST_LINES = 6


def power_figures(calibration: Calibration) -> Iterator[Figure]:
    """A plot for every few series."""
    for title, name, rows in (
        ("Slowdowns that are found", "power", calibration.speed),
        ("Losses of recall that are found", "power-recall", calibration.recall),
    ):
        slowed = [row for row in rows if row.series]
        series = list(dict.fromkeys(row.series for row in slowed))
        parts = -(-len(series) // _MOST_LINES)
        for part in range(parts):
            shown = series[part * _MOST_LINES : (part + 1) * _MOST_LINES]
            numbered = f"{title}, {part + 1} of {parts}" if parts > 1 else title
            rows_shown = [row for row in slowed if row.series in shown]
            yield _power_figure(numbered, f"{name}-{part}", rows_shown)


def _power_figure(title: str, name: str, rows: Sequence[Power]) -> Figure:
    series = list(dict.fromkeys(row.series for row in rows))
    effects = tuple(sorted({100 * row.effect for row in rows}))
    lines = tuple(
        svg.Line(
            clean(one, limit=60),
            tuple(sorted((100 * r.effect, r.found[0]) for r in rows if r.series == one)),
            slot,
        )
        for slot, one in enumerate(series)
    )
    chart = svg.Chart(
        title,
        f"Share of gates that say REGRESSION, by effect, for {plural(len(series), 'series')}.",
        Axis("effect, %", ticks=effects),
        Axis("share of gates", include=(0.0, 1.0), ticks=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        lines,
        (svg.Rule("95 %", 0.95),),
    )
    return figure(
        chart,
        name=name,
        caption="Simulated gates over pairs that were really measured. Higher is better.",
        columns=("series", "effect", "found", "95 % interval", "gates"),
        rows=[
            (
                clean(r.series),
                share(r.effect),
                share(r.found[0]),
                f"{share(r.found[1])} to {share(r.found[2])}",
                f"{r.gates}",
            )
            for r in rows
        ],
    )
