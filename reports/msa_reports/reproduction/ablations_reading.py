"""Recorded ablations: values over seeds, differences from the base, gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msa_reports.documents import (
    Object,
    as_object,
    count,
    get,
    number,
    objects,
    optional_number,
    within,
)
from msa_reports.text import number as shown

#: What is compared -> how it is called in a table.
MEASURES: Mapping[str, str] = {
    "text_nll": "text, nats per byte",
    "answers": "answers right",
    "mass": "mass kept",
    "blocks": "best blocks kept",
}
DIFFERS, TOO_FEW = "differs", "too few seeds"
#: What a record says of a difference -> what a reader is told.
SAYS: Mapping[str, str] = {
    DIFFERS: "differs",
    "no difference": "no difference seen at this size",
    "diverged": "diverged",
    TOO_FEW: "too few seeds to say",
}


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over seeds: mean and range, None where no run has it; ``says`` of a difference."""

    values: tuple[float | None, ...]
    mean: float | None
    low: float | None
    high: float | None
    says: str = ""

    def text(self, *, sign: bool = False) -> str:
        """Mean and range."""
        if self.mean is None or self.low is None or self.high is None:
            return "n/a"
        mean, low, high = (_figure(one, sign=sign) for one in (self.mean, self.low, self.high))
        return mean if len(self.values) == 1 else f"{mean} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class Row:
    """A reading over seeds.

    Attributes:
        name: of the comparison; empty for the base.
        group: of the comparison.
        values: by measure.
        differences: by measure, from the reading that it is compared with.
        interval: 95 % of the answers, and the questions that it is of.
    """

    name: str
    group: str
    values: Mapping[str, Spread]
    differences: Mapping[str, Spread]
    interval: tuple[float, float, int] | None

    def answers(self) -> str:
        """The share of right answers with its interval."""
        found = self.values.get("answers")
        if found is None or found.mean is None or self.interval is None:
            return "n/a"
        low, high, n = self.interval
        return f"{found.mean:.3f} ({low:.3f} to {high:.3f}, n {n})"

    def value(self, measure: str) -> str:
        """Mean and range of a measure."""
        if measure == "answers":
            return self.answers()
        return self.values[measure].text() if measure in self.values else "n/a"

    def difference(self, measure: str) -> str:
        """The paired difference and what it says."""
        found = self.differences.get(measure)
        if found is None:
            return "n/a"
        return f"{found.text(sign=True)}: {SAYS.get(found.says, found.says)}"


@dataclass(frozen=True, slots=True)
class Gradient:
    """Norms of the model's gradient in one run; ``diverged``: the step, None where it did not."""

    seed: int
    median: float | None
    largest: float | None
    spikes: float | None
    not_finite: int
    diverged: int | None


@dataclass(frozen=True, slots=True)
class Gradients:
    """An experiment's gradients: a row a seed, and the norms of the first seed step by step."""

    name: str
    seeds: tuple[Gradient, ...]
    first: tuple[float, ...]


def read_row(row: Object) -> Row:
    """A row as :mod:`msa_suites` records it, else raise ValueError."""
    found = as_object("differences", row.get("differences", {}))
    answers = row.get("answers")
    interval = within("answers", _interval, answers) if isinstance(answers, dict) else None
    return Row(
        name=get(row, "name", str) if "name" in row else "",
        group=get(row, "group", str) if "group" in row else "",
        values={name: _spread(row, name) for name in MEASURES if name in row},
        differences={
            name: within("differences", _spread, found, name) for name in MEASURES if name in found
        },
        interval=interval,
    )


def read_gradients(row: Object) -> Gradients:
    """Gradients as they are recorded, else raise ValueError."""
    return Gradients(
        name=get(row, "name", str),
        seeds=tuple(
            Gradient(
                seed=get(one, "seed", int),
                median=optional_number(one, "median"),
                largest=optional_number(one, "largest"),
                spikes=optional_number(one, "spikes"),
                not_finite=get(one, "not_finite", int),
                diverged=get(one, "diverged", int) if one.get("diverged") is not None else None,
            )
            for one in objects(row, "seeds")
        ),
        # A norm of zero or none has no place on a logarithmic axis.
        first=tuple(one or math.nan for one in _numbers(row, "first")),
    )


def _interval(row: Object) -> tuple[float, float, int] | None:
    if row.get("interval") is None:
        return None
    low, high = _numbers(row, "interval")
    if low is None or high is None:
        raise ValueError(f"interval: wanted two numbers, got {row['interval']!r:.80}")
    return low, high, count(row, "n")


def _spread(row: Object, name: str) -> Spread:
    found = as_object(name, row.get(name))
    return within(name, _read_spread, found)


def _read_spread(row: Object) -> Spread:
    return Spread(
        values=tuple(_numbers(row, "values")),
        mean=optional_number(row, "mean"),
        low=optional_number(row, "low"),
        high=optional_number(row, "high"),
        says=get(row, "verdict", str) if "verdict" in row else "",
    )


def _numbers(row: Object, name: str) -> list[float | None]:
    """A list of finite numbers and nulls, each checked by the place it has in the list."""
    return [
        None if value is None else number({f"{name}[{i}]": value}, f"{name}[{i}]")
        for i, value in enumerate(get(row, name, list))
    ]


def _figure(value: float, *, sign: bool) -> str:
    if not sign:
        return shown(value)
    return f"{value:+.4f}" if value else "0"
