"""Variances of series that share a machine, against populations of known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa_harness.moderated import LEAST_SERIES, _fitted, moderated, prior_of, shared_noise
from msa_harness.statistics import Interval, log_ratio_interval, student_interval

CONFIDENCE = 0.99
ERRORS = st.floats(min_value=1e-4, max_value=1.0)
SERIES = st.lists(st.tuples(ERRORS, st.integers(2, 30)), min_size=LEAST_SERIES, max_size=20)


def interval(se: float, df: float, n: int, estimate: float = 0.0) -> Interval:
    return student_interval(estimate, se, df, n, CONFIDENCE)


def named(rows: np.ndarray) -> list[dict[str, float]]:
    return [{f"pair-{i:02d}": float(x) for i, x in enumerate(row)} for row in rows]


def drawn(rng: np.random.Generator, sds: np.ndarray, df: int, n: int) -> list[Interval]:
    """Intervals whose variances are chi-squared about the given truth."""
    variances = sds**2 * rng.chisquare(df, len(sds)) / df
    return [interval(math.sqrt(v / n), df, n) for v in variances]


@pytest.mark.parametrize("freedom", [3.0, 10.0, 30.0])
def test_the_prior_of_many_series_is_found(freedom):
    """Truths drawn from a scaled inverse chi-squared: its scale and its freedom come back."""
    rng = np.random.default_rng(2)
    sds = 0.05 * np.sqrt(freedom / rng.chisquare(freedom, 20_000))
    prior = _fitted(drawn(rng, sds, df=5, n=8), 0.0)
    assert prior.variance == pytest.approx(0.05**2, rel=0.05)
    assert prior.df == pytest.approx(freedom, rel=0.15)
    assert prior.known == 5 * 20_000


def test_series_of_one_variance_share_it_whole():
    alike = [interval(0.02, 5, 8) for _ in range(6)]
    prior = _fitted(alike, 0.0)
    assert prior.variance == pytest.approx(0.02**2 * 8)
    assert math.isinf(prior.df)
    one = moderated(interval(0.01, 5, 8, estimate=0.3), prior, confidence=CONFIDENCE)
    # No better known than by all of them together.
    assert (one.se, one.df, one.n) == (pytest.approx(0.02), 30, 8)
    assert one == student_interval(0.3, one.se, 30, 8, CONFIDENCE)
    # Nobody is taken to be quieter than it was.
    one = moderated(interval(0.05, 5, 8, estimate=0.3), prior, confidence=CONFIDENCE)
    assert one == student_interval(0.3, 0.05, 30, 8, CONFIDENCE)


@given(SERIES)
def test_the_quiet_move_towards_the_prior_and_all_gain_freedom(series):
    found = [interval(se, df, 8, estimate=0.1) for se, df in series]
    prior = _fitted(found, 0.0)
    for one in found:
        after = moderated(one, prior, confidence=CONFIDENCE)
        own = one.se**2 * one.n
        assert own * (1 - 1e-9) <= after.se**2 * after.n <= max(own, prior.variance) * (1 + 1e-9)
        assert one.df <= after.df <= max(one.df, sum(other.df for other in found))
        assert (after.estimate, after.n) == (one.estimate, one.n)
    assert _fitted(found[::-1], 0.0).variance == pytest.approx(prior.variance)


@given(SERIES, st.floats(min_value=1e-3, max_value=1e3))
def test_other_units_are_other_units(series, factor):
    first = _fitted([interval(se, df, 8) for se, df in series], 0.0)
    scaled = _fitted([interval(se * factor, df, 8) for se, df in series], 0.0)
    assert scaled.variance == pytest.approx(first.variance * factor**2, rel=1e-6)


@pytest.mark.parametrize(
    "scales", [[], [0.1] * (LEAST_SERIES - 1), [0.0] * 8, [0.0] * 4 + [0.1, 0.2, 0.3]]
)
def test_few_series_and_such_without_spread_say_nothing(scales):
    rows = np.random.default_rng(1).normal(size=(len(scales), 8)) * np.array(scales)[:, None]
    assert prior_of(named(rows)) is None
    one = interval(0.05, 5, 8)
    assert moderated(one, None, confidence=CONFIDENCE) is one


def test_a_series_without_spread_has_that_of_the_others():
    found = [interval(se, 5, 8) for se in (0.0, 0.02, 0.03, 0.025, 0.02, 0.03, 0.022)]
    prior = _fitted(found, 0.0)
    assert math.isfinite(prior.variance)
    one = moderated(found[0], prior, confidence=CONFIDENCE)
    assert 0 < one.se < 0.03
    assert one.high > 0


def test_correlation_beyond_chance_is_shared_noise():
    rng = np.random.default_rng(3)
    alone = rng.normal(size=(300, 10, 8))
    common = rng.normal(size=(300, 1, 8))
    assert np.mean([shared_noise(rows) for rows in alone]) < 0.03
    assert shared_noise(common[0] * np.arange(1, 6)[:, None]) == pytest.approx(1)
    # Correlation .5, squared.
    half = [shared_noise(rows) for rows in alone + common]
    assert np.mean(half) == pytest.approx(0.25, abs=0.06)
    for few in ([], [[1.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 1.0, 1.0]] * 3):
        assert shared_noise(few) == 1.0


@pytest.mark.parametrize(
    ("n", "spoilt", "common", "width"),
    [
        (8, 0.0, 0.0, 0.92),
        (8, 0.1, 0.0, 0.92),
        (16, 0.0, 0.0, 0.92),
        (8, 0.0, 1, 0.92),
        (8, 0.0, 9, 1.2),
    ],
)
def test_bounds_miss_no_more_often_than_by_own_variances_and_lie_closer(n, spoilt, common, width):
    """Noise that differs by a third, of each series its own, or the common one beside it."""
    rng, runs = np.random.default_rng(7), 600
    missed = {confidence: [0, 0] for confidence in (0.99, 0.999)}
    wide = close = 0.0
    for _ in range(runs):
        rows = rng.normal(size=(11, n)) + common * rng.normal(size=n)
        rows *= 0.05 * np.exp(0.3 * rng.normal(size=11))[:, None]
        rows *= np.where(rng.random(rows.shape) < spoilt, 4, 1)
        own = [log_ratio_interval(row, confidence=CONFIDENCE) for row in rows]
        prior = prior_of(named(rows))
        after = [moderated(one, prior, confidence=CONFIDENCE) for one in own]
        for confidence, counts in missed.items():
            counts[0] += sum(one.upper(confidence) < 0 for one in own)
            counts[1] += sum(one.upper(confidence) < 0 for one in after)
        wide += sum(one.upper(0.999) - one.estimate for one in own)
        close += sum(one.upper(0.999) - one.estimate for one in after)
    for confidence, (before, now) in missed.items():
        said = (1 - confidence) * runs * 11
        # Series of one noise miss together.
        allowed = 2 * math.sqrt(said * (11 if common else 1))
        assert now <= before + allowed, (confidence, before, now)
    assert close < width * wide
