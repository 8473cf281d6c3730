"""The mean over one's own shapes, each with its share of the traffic, as one more timed series.

It is made of what the series of the shapes show in a pair of processes: their log ratios, call by
call, weighted. A change that is a little slower on a rare shape and faster on a common one is
faster here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from msa_harness.samples import Sample, log_ratio
from msa_suites.case import Case

NAME = "speed/weighted"

_SIDES = ("base", "head")


def weights(cases: Sequence[Case] | None) -> dict[str, float]:
    """Series of one's own shapes and their weights; empty where there are fewer than two."""
    if cases is None or len(cases) < 2:
        return {}
    return {f"speed/attend/{case.name}": case.weight for case in cases}


def weighted_samples(samples: Iterable[Sample], cases: Sequence[Case] | None) -> list[Sample]:
    """A sample for base and head of every pair that has timed all shapes on both sides.

    The value of base is the weighted geometric mean of its seconds, that of head is base's times
    the weighted mean ratio.
    """
    share = weights(cases)
    found: dict[str, dict[tuple[str, str], Sample]] = {}
    known: set[str] = set()
    untimed: dict[str, Sample] = {}
    for one in samples:
        if one.series in share and one.value is not None and min(one.value, *one.raw) > 0:
            found.setdefault(one.item, {})[one.series, one.subject] = one
        elif one.series in share and one.value is None:
            untimed.setdefault(one.series, one)
        elif one.series == NAME:
            known.add(one.item)
    made = []
    if untimed and not found and "all" not in known:
        name, one = next(iter(untimed.items()))
        why = f"no mean: {name}: {one.detail}"
        made.append(replace(one, series=NAME, item="all", value=None, detail=why))
    for item, parts in found.items():
        if item in known or len(parts) < len(_SIDES) * len(share):
            continue
        total = sum(share.values())
        ratio = seconds = 0.0
        for name, weight in share.items():
            base, head = (parts[name, side] for side in _SIDES)
            assert base.value is not None
            ratio += weight / total * log_ratio(base, head)
            seconds += weight / total * math.log(base.value)
        listed = ", ".join(f"{name.rpartition('/')[2]} {w:g}" for name, w in share.items())
        for side, value in zip(_SIDES, (seconds, seconds + ratio), strict=True):
            like = parts[next(iter(share)), side]
            made.append(replace(like, series=NAME, value=math.exp(value), raw=(), detail=listed))
    return made


def asked_of(wanted: Mapping[str, str], cases: Sequence[Case] | None) -> dict[str, str]:
    """The judge's requests, those about the mean as requests about every shape."""
    asked = {name: request for name, request in wanted.items() if name != NAME}
    if NAME in wanted:
        asked = dict.fromkeys(weights(cases), wanted[NAME]) | asked
    return asked
