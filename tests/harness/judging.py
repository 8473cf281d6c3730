"""Gates with one of every method, samples of known truth, and the verdict on one series."""

from __future__ import annotations

import math
from datetime import date

from msa_harness.gates import parse_gates
from msa_harness.judge import judge
from msa_harness.records import Sample
from msa_harness.verdicts import SeriesVerdict

TODAY = date(2026, 6, 1)
TABLE = """
[[gate]]
series = "correctness/*"
method = "hard"
direction = "higher"
[[gate]]
series = "speed/startup"
method = "report"
[[gate]]
series = "speed/control/*"
method = "report"
[[gate]]
series = "speed/*"
method = "speed"
unit = "s"
threshold = 0.02
margin = 0.15
control = "speed/control/*"
drift = 0.05
[[gate]]
series = "work/attended*"
method = "exact"
must_not_decrease = true
[[gate]]
series = "work/*"
method = "exact"
threshold = 0.01
means = "a dense path"
[[gate]]
series = "quality/*/dense"
method = "report"
[[gate]]
series = "quality/*/recall"
method = "binary"
direction = "higher"
margin = 0.10
confidence = 0.95
signal_from = "{series}/dense"
floor = 0.9
[[gate]]
series = "quality/*/nll"
method = "paired_mean"
threshold = 0.002
margin = 0.02
ceiling = 3.0
[[gate]]
series = "quality/*/share"
method = "paired_mean"
direction = "higher"
threshold = 0.005
margin = 0.03
[[waiver]]
series = "speed/waived"
reason = "agreed"
expires = 2026-06-30
[[waiver]]
series = "speed/late"
reason = "was agreed"
expires = 2026-01-31
"""
GATES = parse_gates(TABLE)


def pairs(name, logs, *, prefix="pair", base=0.1, start=0):
    """Speed samples whose log ratios are given."""
    rows = []
    for i, log in enumerate(logs, start=start):
        item, drift = f"{prefix}-{i:02d}", 1 + 0.3 * math.sin(i)
        for subject, value in (("base", base * drift), ("head", base * drift * math.exp(log))):
            one = Sample("speed", name, subject, "s", item, value, raw=(value,), repro="again")
            rows.append(one)
    return rows


WIGGLE = [0.03, -0.03, 0.04, -0.04, 0.02, -0.02, 0.05, -0.05]
CONTROL = pairs("speed/control/x", WIGGLE)


def around(slowdown, wiggle=WIGGLE):
    return [math.log(1 + slowdown) + w for w in wiggle]


def check(item, value, subject="head", detail=""):
    return Sample("correctness", "correctness/a", subject, "check", item, value, detail=detail)


def nll(item, value, subject="head", *, detail="", name="quality/t/nll", cluster=None):
    cluster = item if cluster is None else cluster
    return Sample("quality", name, subject, "nats", item, value, cluster, detail)


def verdict_of(samples, name, *, gates=GATES, **options) -> SeriesVerdict:
    outcome = judge(samples, gates, TODAY, **options)
    return next(one for one in outcome.series if one.name == name)
