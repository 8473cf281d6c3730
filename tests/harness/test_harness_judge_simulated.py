"""The gate on simulated machines: no alarms on equal code, slowdowns found among many series."""

from __future__ import annotations

import gc
import math
from collections import Counter

import numpy as np
import pytest

from msa_harness.judge import judge
from msa_harness.verdicts import Verdict

from .judging import GATES, TODAY, pairs


@pytest.fixture
def quick_collections():
    """Holm's function in statsmodels collects garbage; frozen, a loaded torch costs it nothing."""
    gc.freeze()
    yield
    gc.unfreeze()


def gate_run(rng, slow, *, series=20, sd=0.04):
    """One gate run as the runner drives it; the first series is `slow`, the others are equal."""
    names = [f"speed/s{i}" for i in range(series)]
    effect = dict.fromkeys(names, 0.0) | {names[0]: math.log(1 + slow), "speed/control/x": 0.0}
    rows = [row for name in effect for row in pairs(name, effect[name] + rng.normal(0, sd, 8))]
    have = Counter({(name, "pair"): 8 for name in effect})
    while True:
        outcome = judge(rows, GATES, TODAY)
        wanted = {one.name: one.more for one in outcome.series if one.more}
        if not wanted:
            return outcome
        for name, request in wanted.items():
            count = 8 if request == "confirm" else 4
            prefix = "confirm" if request == "confirm" else "pair"
            logs = effect[name] + rng.normal(0, sd, count)
            rows += pairs(name, logs, prefix=prefix, start=have[name, prefix])
            have[name, prefix] += count


@pytest.mark.usefixtures("quick_collections")
def test_equal_code_is_no_regression_and_passes():
    rng = np.random.default_rng(11)
    verdicts = [gate_run(rng, 0.0, series=6).verdict for _ in range(40)]
    assert Verdict.REGRESSION not in verdicts
    assert verdicts.count(Verdict.PASS) >= 38


@pytest.mark.usefixtures("quick_collections")
def test_a_tenth_slower_is_found_among_twenty_series():
    rng = np.random.default_rng(12)
    verdicts = [gate_run(rng, 0.10).verdict for _ in range(12)]
    assert verdicts.count(Verdict.REGRESSION) >= 10
