"""From rows of plain data to the records that the judge reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msa_harness.records import Sample, finite
from msa_suites.quality.items import NLL_TASKS, RECALL_TASKS
from msa_suites.ruler.drawing import TASKS
from msa_suites.ruler.texts import TEXT_TASKS

#: Unit by the first word of a metric's name.
UNITS = {
    "recall": "recall",
    "nll": "nats",
    "kl": "nats",
    "agreement": "share",
    "blocks": "share",
    "mass": "share",
    "distinct": "blocks",
}


def series_name(row: Mapping[str, Any]) -> str:
    """``quality/<task>/<metric>``, or ``quality/<task>/<where>/<metric>`` for ``metric_where``.

    What dense attention scored, for the signal check, has ``/dense`` behind it.
    """
    metric, _, where = str(row["metric"]).partition("_")
    name = "/".join(["quality", row["task"], *([where] if where else []), metric])
    return f"{name}/dense" if row.get("attention") == "dense" else name


def main_series(task: str) -> tuple[str, str]:
    """Series and unit that stand for a task of which nothing could be measured."""
    recalls, texts = (*RECALL_TASKS, *TASKS), (*NLL_TASKS, *TEXT_TASKS, "positions")
    metric = "recall" if task in recalls else "nll" if task in texts else "kl"
    return f"quality/{task}/{metric}", UNITS[metric]


def to_samples(
    rows: Iterable[Mapping[str, Any]], *, subject: str, ran: str = "", repro: str = ""
) -> list[Sample]:
    """One sample per row.

    Args:
        rows: of :func:`msa_suites.quality.evaluate.evaluate` or
            :func:`msa_suites.quality.fidelity.measure_fidelity` or
            :func:`msa_suites.quality.positions.measure_positions`.
        subject: ``base`` or ``head``.
        ran: the implementation that ran.
        repro: the command that repeats it.

    Raises:
        ValueError: two rows of one series have the same item, or a metric has no unit.
    """
    samples, seen = [], set()
    for row in rows:
        series, item = series_name(row), str(row["item"])
        if (series, item) in seen:
            raise ValueError(f"rows: wanted one value for item {item} of {series}, got two")
        seen.add((series, item))
        kind = str(row["metric"]).partition("_")[0]
        if kind not in UNITS:
            raise ValueError(f"metric: wanted one of {', '.join(UNITS)}, got {row['metric']!r}")
        # A model that answers NaN is measured, and is wrong; it must not end the run.
        value, detail = finite(row["value"])
        samples.append(
            Sample(
                suite="quality",
                series=series,
                subject=subject,
                unit=UNITS[kind],
                item=item,
                value=value,
                raw=tuple(row.get("raw", ())),
                detail=detail,
                cluster=str(row["cluster"]),
                ran=ran,
                repro=repro,
            )
        )
    return samples
