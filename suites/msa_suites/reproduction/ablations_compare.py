"""Runs of several seeds beside those of the base: values, paired differences, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from msa_harness.statistics import wilson
from msa_suites.reproduction.ablations_plan import BASE, COMPARISONS, FROZEN, OWN, Comparison

#: Seeds below which nothing is claimed.
ENOUGH = 3
#: What is compared: nats per byte, and shares.
MEASURES = ("text_nll", "answers", "mass", "blocks")
#: A step above so many times the base's median is a spike.
SPIKE = 10.0

#: By experiment, its runs in the order of the seeds.
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def value_of(run: Mapping[str, Any], reading: str, measure: str) -> float | None:
    """What a run's model scored in a reading; None where it was not read or has no such measure."""
    found = run["measured"].get(reading, {}).get(measure)
    value: float | None = found["value"] if isinstance(found, dict) else found
    return value


def verdict(differences: Sequence[float | None]) -> str:
    """``differs`` where enough seeds all agree in sign, ``no difference`` where they do not.

    ``diverged`` where a run has no value, ``too few seeds`` where nothing can be claimed.
    """
    known = [one for one in differences if one is not None]
    if len(known) < len(differences):
        return "diverged"
    if len(known) < ENOUGH:
        return "too few seeds"
    return "differs" if min(known) > 0 or max(known) < 0 else "no difference"


def row_of(runs: Runs, run: str, reading: str) -> dict[str, Any]:
    """One reading over the seeds: of every measure its values, mean and range."""
    row: dict[str, Any] = {"run": run, "reading": reading}
    for measure in MEASURES:
        values = [value_of(one, reading, measure) for one in runs[run]]
        if any(value is not None for value in values):
            row[measure] = _spread(values)
    if "answers" in row:
        row["answers"] |= _interval(runs[run], reading, row["answers"]["mean"])
    return row


def compare(runs: Runs, one: Comparison) -> dict[str, Any]:
    """One comparison, with the paired differences of every measure that both have."""
    row = {"name": one.name, "group": one.group, **row_of(runs, one.run, one.reading)}
    row |= {"against": one.against, "base": one.base}
    differences = {}
    for measure in MEASURES:
        pairs = [
            (value_of(mine, one.reading, measure), value_of(theirs, one.base, measure))
            for mine, theirs in zip(runs[one.run], runs[one.against], strict=True)
        ]
        less = [None if a is None or b is None else a - b for a, b in pairs]
        diverged = any(run["diverged"] is not None for run in (*runs[one.run], *runs[one.against]))
        if any(value is not None for value in less) or diverged:
            differences[measure] = {**_spread(less), "verdict": verdict(less)}
    row["differences"] = differences
    return row


def gradients(runs: Runs, name: str) -> dict[str, Any]:
    """Norms of the model's gradient over the steps of an experiment, seed by seed."""
    rows = []
    for run, base in zip(runs[name], runs[BASE], strict=True):
        norms = run["steps"]["grad_norm"]
        known = [norm for norm in norms if norm is not None]
        usual = median(norm for norm in base["steps"]["grad_norm"] if norm is not None)
        rows.append(
            {
                "seed": run["seed"],
                "median": median(known) if known else None,
                "largest": max(known, default=None),
                "spikes": sum(norm > SPIKE * usual for norm in known) / len(norms)
                if norms
                else None,
                "not_finite": len(norms) - len(known),
                "diverged": run["diverged"],
            }
        )
    return {"name": name, "seeds": rows, "first": runs[name][0]["steps"]["grad_norm"]}


def summary(runs: Runs) -> dict[str, Any]:
    """All comparisons, and the gradients of the runs in which the model is trained."""
    trained = [BASE, *(one.run for one in COMPARISONS if one.group == "training")]
    return {
        "base": row_of(runs, BASE, OWN),
        "frozen": row_of(runs, FROZEN, OWN),
        "comparisons": [compare(runs, one) for one in COMPARISONS],
        "gradients": [gradients(runs, name) for name in trained],
    }


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "values": list(values),
        "mean": fmean(known) if known else None,
        "low": min(known, default=None),
        "high": max(known, default=None),
    }


def _interval(runs: Sequence[Mapping[str, Any]], reading: str, share: float) -> dict[str, Any]:
    """Wilson's interval of the mean over the questions of one run: all seeds answer the same."""
    asked = next(
        run["measured"][reading]["answers"]["n"] for run in runs if reading in run["measured"]
    )
    low, high = wilson(round(share * asked), asked)
    return {"interval": [min(low, share), max(high, share)], "n": asked}
