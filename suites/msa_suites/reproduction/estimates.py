"""Estimates as the sections record them: ``{"value", "low", "high", "n"}``, 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msa_harness.clustered import cluster_mean_interval
from msa_harness.statistics import wilson

Estimate = dict[str, Any]
#: Of each bound; both together leave out 5 %.
_CONFIDENCE = 0.975


def mean(
    values: Sequence[float], clusters: Sequence[str], *, seed: int, least: float = -math.inf
) -> Estimate:
    """The mean of values that share documents, by a bootstrap over the documents.

    With a single document there is no interval: ``low`` and ``high`` are None. ``least`` is what
    no value can be below.
    """
    if len(set(clusters)) < 2:
        value = sum(values) / len(values)
        return {"value": value, "low": None, "high": None, "n": len(values)}
    found = cluster_mean_interval(values, clusters, confidence=_CONFIDENCE, seed=seed)
    return {
        "value": found.estimate,
        "low": max(found.low, least),
        "high": found.high,
        "n": len(values),
    }


def proportion(hits: Sequence[bool], clusters: Sequence[str], *, seed: int) -> Estimate:
    """A share, with the wider of two intervals.

    Wilson's has a width where all items agree, and takes items of one document for independent;
    the bootstrap over documents is the other way round.
    """
    value = sum(hits) / len(hits)
    low, high = wilson(sum(hits), len(hits))
    found = mean([float(hit) for hit in hits], clusters, seed=seed)
    if found["low"] is not None:
        low, high = min(low, found["low"]), max(high, found["high"])
    # Rounding may put a bound of 0 or 1 a little inside.
    return {
        "value": value,
        "low": max(0.0, min(low, value)),
        "high": min(1.0, max(high, value)),
        "n": len(hits),
    }
