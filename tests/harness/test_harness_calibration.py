"""Simulated gates: no alarms on quiet identical code, certain alarms on large slowdowns."""

from __future__ import annotations

import math
import random

import pytest

from msa_harness.calibration import pairs_of, simulate, simulate_recall, timed_series
from msa_harness.gates import parse_gates
from msa_harness.samples import Sample

TABLE = """
[[gate]]
series = "speed/control/*"
method = "report"

[[gate]]
series = "speed/startup"
method = "report"

[[gate]]
series = "speed/*"
method = "speed"
direction = "lower"
threshold = 0.02
margin = 0.15
confidence = 0.99
pairs = 8
max_pairs = 16
alternations = 5
control = "speed/control/*"
drift = 0.05

[[gate]]
series = "quality/*/dense"
method = "report"

[[gate]]
series = "quality/*"
method = "binary"
direction = "higher"
margin = 0.10
confidence = 0.95
signal_from = "{series}/dense"
signal_floor = 0.8
"""
GATES = parse_gates(TABLE)


def _sample(series, subject, item, value, **more):
    suite = series.partition("/")[0]
    unit = "s" if suite == "speed" else "recall"
    return Sample(suite=suite, series=series, subject=subject, unit=unit, item=item, value=value,
                  cluster=more.pop("cluster", item), **more)  # fmt: skip


def measured(spread, *, pairs=12, seed=0, names=("speed/a", "speed/b", "speed/control/dense")):
    """Pairs of identical code whose log ratios have a known spread."""
    draw = random.Random(seed)
    samples = []
    for number in range(pairs):
        for name in names:
            for subject in ("base", "head"):
                raw = tuple(math.exp(draw.gauss(0, spread)) for _ in range(5))
                item = f"pair-{number:02d}"
                samples.append(_sample(name, subject, item, sorted(raw)[2], raw=raw))
    return samples


def test_only_whole_pairs_of_the_first_set_are_pooled():
    samples = measured(0.01, pairs=4)
    samples = [s for s in samples if (s.item, s.series) != ("pair-02", "speed/b")]
    samples.append(_sample("speed/a", "head", "confirm-00", 1.0))
    samples.append(_sample("quality/x", "head", "pair-00", 1.0))
    pairs = pairs_of(samples)
    assert len(pairs) == 3
    assert timed_series(pairs, GATES) == ["speed/a", "speed/b"]


def test_identical_code_raises_no_alarm():
    tally = simulate(pairs_of(measured(0.02)), GATES, count=20)
    assert tally.gates == 20
    assert tally.verdicts["PASS"] == 20
    assert tally.flagged.total() == 0
    share, low, high = tally.share("REGRESSION")
    assert (share, low) == (0.0, 0.0)
    assert high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert set(tally.mde) == {"speed/a", "speed/b"}


def test_a_large_slowdown_of_one_series_is_found_in_that_series():
    pairs = pairs_of(measured(0.02))
    tally = simulate(pairs, GATES, count=10, slowdown=0.20, series="speed/b")
    assert tally.own["REGRESSION"] == 10
    assert tally.flagged["speed/a"] == 0


def test_noise_ends_as_inconclusive_not_as_pass():
    pairs = pairs_of(measured(0.6))
    tally = simulate(pairs, GATES, count=10)
    assert tally.verdicts["REGRESSION"] == 0
    assert tally.verdicts["PASS"] < 3


def test_a_pass_with_a_resolution_says_that_it_excludes_no_less():
    pairs = pairs_of(measured(0.04))
    loose = TABLE.replace("confidence = 0.99", "confidence = 0.7")
    coarse = loose.replace("drift = 0.05", "drift = 0.05\nresolution = 0.05")
    wrong = [
        simulate(pairs, parse_gates(text), count=40, slowdown=0.05, series="speed/a").excluded
        for text in (loose, coarse)
    ]
    assert wrong[0] > 0
    assert wrong[1] == 0


def test_the_same_seed_gives_the_same_verdicts():
    pairs = pairs_of(measured(0.05))
    first, again, other = (
        simulate(pairs, GATES, count=10, slowdown=0.06, series="speed/a", seed=seed).to_json()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("pairs", "series", "text"),
    [(1, "", "at least two real pairs, got 1"), (4, "speed/z", "wanted one of speed/a, speed/b")],
)
def test_bad_input(pairs, series, text):
    with pytest.raises(ValueError, match=text):
        simulate(pairs_of(measured(0.01, pairs=pairs)), GATES, count=1, series=series)


def recalled(items=96, documents=8):
    samples = []
    for number in range(items):
        for name in ("quality/facts", "quality/facts/dense"):
            cluster = f"document-{number % documents}"
            samples.append(_sample(name, "head", f"item-{number}", 1.0, cluster=cluster))
    return samples


def test_lost_recall_is_found_and_none_is_not():
    found = {
        loss: simulate_recall(
            recalled(), GATES, series="quality/facts", loss=loss, count=20, seed=0
        ).own
        for loss in (0.0, 0.25)
    }
    assert found[0.0]["PASS"] == 20
    assert found[0.25]["REGRESSION"] == 20


def test_recall_of_an_unknown_series():
    with pytest.raises(ValueError, match="wanted one of the run"):
        simulate_recall(recalled(), GATES, series="quality/z", loss=0.1, count=1, seed=0)
