"""Statistics against data of known truth: properties, and error rates by simulation."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import mstats

from msa_harness.clustered import (
    cluster_mean_interval,
    discordant,
    mcnemar_p,
    proportion_loss_interval,
)
from msa_harness.records import Sample, log_ratio
from msa_harness.statistics import (
    detectable,
    holm,
    items_needed,
    log_ratio_interval,
    welch_log_interval,
    wilson,
)

SECONDS = st.floats(min_value=1e-6, max_value=1e3)
PAIRS = st.lists(st.tuples(SECONDS, SECONDS), min_size=2, max_size=20)
BINARY = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1)


def of_pairs(base, head, *, confidence):
    return log_ratio_interval(np.log(np.divide(head, base)).tolist(), confidence=confidence)


def timed(subject, *raw):
    return Sample("speed", "speed/x", subject, "s", "pair-00", statistics.median(raw), raw=raw)


def test_a_pair_is_compared_call_by_call():
    # The machine is in its fast state for one call of base and two of head.
    base, head = timed("base", 0.14, 0.21, 0.21), timed("head", 0.14, 0.14, 0.21)
    assert math.log(head.value / base.value) < -0.4
    assert log_ratio(base, head) == 0.0
    assert math.isclose(log_ratio(base, timed("head", 0.28, 0.42, 0.21)), math.log(2))
    # Another number of calls: nothing to pair.
    assert math.isclose(log_ratio(base, timed("head", 0.42)), math.log(2))
    with pytest.raises(ValueError, match="positive"):
        log_ratio(base, timed("head", 0.1, 0.0, 0.1))
    with pytest.raises(ValueError, match="values on both sides"):
        log_ratio(base, Sample("speed", "speed/x", "head", "s", "pair-00", None))


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-7, abs_tol=1e-9)


@given(PAIRS, st.floats(min_value=0.1, max_value=10))
def test_log_ratio_is_ordered_antisymmetric_and_scales(pairs, factor):
    base, head = zip(*pairs, strict=True)
    one = of_pairs(base, head, confidence=0.99)
    assert one.low <= one.estimate <= one.high
    assert all(math.isfinite(x) for x in (one.low, one.estimate, one.high, one.se))
    swapped = of_pairs(head, base, confidence=0.99)
    assert close(swapped.estimate, -one.estimate)
    assert close(swapped.low, -one.high)
    slower = of_pairs(base, [x * factor for x in head], confidence=0.99)
    assert math.isclose(slower.estimate, one.estimate + math.log(factor), abs_tol=1e-7)
    # A machine that is slower on both sides of each pair changes nothing.
    scaled = of_pairs(
        [b * (i + 1) for i, b in enumerate(base)],
        [h * (i + 1) for i, h in enumerate(head)],
        confidence=0.99,
    )
    assert math.isclose(scaled.low, one.low, rel_tol=1e-6, abs_tol=1e-6)


@given(st.lists(st.floats(min_value=-3, max_value=3), min_size=2, max_size=30))
def test_the_trimmed_mean_agrees_with_scipy(ratios):
    one = log_ratio_interval(ratios, confidence=0.99)
    share = (len(ratios) // 5 + 1e-9) / len(ratios)
    low, high = mstats.trimmed_mean_ci(
        np.array(ratios), limits=(share, share), inclusive=(True, True), alpha=0.02
    )
    assert math.isclose(one.low, low, rel_tol=1e-6, abs_tol=1e-6)
    assert math.isclose(one.high, high, rel_tol=1e-6, abs_tol=1e-6)


@pytest.mark.parametrize("spoilt", [0.0, 0.1])
def test_bounds_miss_as_often_as_they_say(spoilt):
    """Eight pairs of equal code, some of them spoilt on either side: 1 % is said."""
    rng = np.random.default_rng(5)
    draws = rng.normal(0, 0.05, (4000, 8))
    draws += rng.normal(0, 0.5, draws.shape) * (rng.random(draws.shape) < spoilt)
    low = [log_ratio_interval(row, confidence=0.99).low for row in draws]
    assert np.mean(np.array(low) > 0) < 0.015


@given(PAIRS)
def test_equal_times_give_an_interval_of_nothing(pairs):
    base = [b for b, _ in pairs]
    one = of_pairs(base, base, confidence=0.99)
    assert (one.low, one.estimate, one.high) == (0.0, 0.0, 0.0)
    assert one.p_above(0.02) == 1.0


@given(st.lists(SECONDS, min_size=2), st.lists(SECONDS, min_size=2))
def test_welch_agrees_with_scipy(base, head):
    one = welch_log_interval(base, head, confidence=0.99)
    assert one.low <= one.estimate <= one.high
    if min(np.std(np.log(base)), np.std(np.log(head))) > 1e-9:
        peer = stats.ttest_ind(np.log(head), np.log(base), equal_var=False)
        interval = peer.confidence_interval(0.98)  # two-sided: 0.99 on each side
        assert math.isclose(one.low, interval.low, rel_tol=1e-6, abs_tol=1e-6)
        assert math.isclose(one.df, peer.df, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("base", "head", "text"),
    [
        ([1.0], [1.0], "pairs: wanted at least 2"),
        ([1.0, math.nan], [1.0, 1.0], "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(base, head, text):
    with pytest.raises(ValueError, match=text):
        of_pairs(base, head, confidence=0.99)


@given(st.lists(st.floats(min_value=0, max_value=1), max_size=20))
@settings(max_examples=25)
def test_holm_is_between_the_raw_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for raw, one in zip(p_values, adjusted, strict=True):
        assert raw - 1e-12 <= one <= min(1.0, raw * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= -1e-12)


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 6)), min_size=2, max_size=40),
    st.integers(0, 5),
)
@settings(max_examples=50)
def test_cluster_intervals_are_finite_seeded_and_hold_the_estimate(rows, seed):
    values, names = [v for v, _ in rows], [f"d{c}" for _, c in rows]
    if len(set(names)) < 2:
        with pytest.raises(ValueError, match="clusters: wanted at least 2"):
            cluster_mean_interval(values, names, confidence=0.99, seed=seed)
        return
    one = cluster_mean_interval(values, names, confidence=0.99, seed=seed, draws=500)
    assert one == cluster_mean_interval(values, names, confidence=0.99, seed=seed, draws=500)
    assert all(math.isfinite(x) for x in (one.low, one.estimate, one.high, one.se))
    assert math.isclose(one.estimate, float(np.mean(values)), abs_tol=1e-9)
    assert one.n == len(set(names))


def test_identical_outputs_give_an_interval_of_nothing():
    one = cluster_mean_interval([0.0] * 8, list("aabbccdd"), confidence=0.99, seed=0)
    assert (one.low, one.high) == (0.0, 0.0)


@given(BINARY)
def test_mcnemar_agrees_with_the_binomial(pairs):
    base, head = [b for b, _ in pairs], [h for _, h in pairs]
    lost, won = discordant(base, head)
    p_value = mcnemar_p(base, head)
    if lost > won:
        tail = float(stats.binom.sf(lost - 1, lost + won, 0.5))
        assert math.isclose(p_value, tail, rel_tol=1e-9)
    else:
        assert p_value == 1.0


@given(BINARY)
def test_loss_bounds_are_antisymmetric_and_within_one(pairs):
    base, head = [b for b, _ in pairs], [h for _, h in pairs]
    names = [""] * len(pairs)
    one = proportion_loss_interval(base, head, names, confidence=0.99)
    swapped = proportion_loss_interval(head, base, names, confidence=0.99)
    assert -1 <= one.low <= one.high <= 1
    assert math.isclose(one.low, -swapped.high, abs_tol=1e-9)


def test_no_discordant_item_still_has_a_bound():
    one = proportion_loss_interval([1.0] * 96, [1.0] * 96, [""] * 96, confidence=0.99)
    assert one.estimate == 0.0
    assert 0.01 < one.high < 0.10  # a 10-point margin is met by 96 items
    few = proportion_loss_interval([1.0] * 8, [1.0] * 8, [""] * 8, confidence=0.99)
    assert few.high > 0.10  # and not by 8


def test_items_that_share_a_context_count_for_less():
    base = [1.0] * 96
    head = [0.0] * 12 + [1.0] * 84
    apart = proportion_loss_interval(base, head, [""] * 96, confidence=0.99)
    together = proportion_loss_interval(
        base, head, [f"d{i // 12}" for i in range(96)], confidence=0.99
    )
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert together.low < 0 < apart.low


@pytest.mark.parametrize(
    ("base", "head", "text"),
    [([0.5], [1.0], "wanted 0 or 1"), ([1.0], [1.0, 0.0], "wanted 1 values"), ([], [], "items")],
)
def test_bad_proportions_are_refused(base, head, text):
    with pytest.raises(ValueError, match=text):
        proportion_loss_interval(base, head, [""] * len(base), confidence=0.99)


def test_items_needed_are_those_of_the_method():
    assert items_needed(0.05, 0.02) == 1071
    assert items_needed(0.05, 0.01) == pytest.approx(4284, abs=3)


def test_wilson_against_known_values():
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 10)[0] == 0.0
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)


# Error rates. A share of `runs` simulations stays below `nominal` plus four standard errors.


def not_above(share, nominal, runs):
    assert share <= nominal + 4 * math.sqrt(nominal * (1 - nominal) / runs)


@pytest.mark.parametrize("n", [3, 8, 16])
def test_log_ratio_bounds_miss_as_often_as_they_say(n):
    rng, runs = np.random.default_rng(n), 4000
    drift = np.exp(rng.normal(0, 0.2, (runs, n)))  # common to both of a pair
    head = drift * np.exp(rng.normal(0.05, 0.04, (runs, n)))
    bounds = [of_pairs(drift[i], head[i], confidence=0.99) for i in range(runs)]
    not_above(np.mean([b.low > 0.05 for b in bounds]), 0.01, runs)
    not_above(np.mean([b.high < 0.05 for b in bounds]), 0.01, runs)


def test_welch_bounds_miss_as_often_as_they_say_under_unequal_noise():
    rng, runs = np.random.default_rng(5), 4000
    base = np.exp(rng.normal(0, 0.02, (runs, 6)))
    head = np.exp(rng.normal(0.1, 0.15, (runs, 10)))
    bounds = [welch_log_interval(base[i], head[i], confidence=0.99) for i in range(runs)]
    not_above(np.mean([b.low > 0.1 for b in bounds]), 0.012, runs)
    not_above(np.mean([b.high < 0.1 for b in bounds]), 0.012, runs)


def test_what_is_said_to_be_detectable_is_detected():
    rng, runs, n, sd = np.random.default_rng(6), 3000, 8, 0.04
    noise = rng.normal(0, sd, (runs, n))
    tau = math.log(1.02)
    base = np.ones(n)
    alike = [of_pairs(base, np.exp(row), confidence=0.99) for row in noise]
    se = math.sqrt(np.mean([one.se**2 for one in alike]))
    effect = detectable(se, alike[0].df, threshold=tau, confidence=0.99)
    hits = [
        of_pairs(base, np.exp(effect + noise[i]), confidence=0.99).low > tau for i in range(runs)
    ]
    assert 0.86 < np.mean(hits) < 0.97


@pytest.mark.parametrize(
    ("clusters", "skewed", "allowed"), [(6, False, 0.02), (8, True, 0.05), (24, True, 0.025)]
)
def test_cluster_bounds_miss_about_as_often_as_they_say(clusters, skewed, allowed):
    rng, runs, each = np.random.default_rng(clusters), 800, 6
    names = [f"d{i}" for i in range(clusters) for _ in range(each)]
    low = high = 0
    for _ in range(runs):
        shared = np.repeat(rng.normal(0, 0.6, clusters), each)
        values = shared + rng.normal(0, 0.8, clusters * each)
        if skewed:  # like KL: a long tail on the worse side
            values = np.exp(values) - math.exp(0.5)
        one = cluster_mean_interval(values.tolist(), names, confidence=0.99, seed=1, draws=1000)
        low, high = low + (one.low > 0), high + (one.high < 0)
    not_above(low / runs, 0.02, runs)
    not_above(high / runs, allowed, runs)


@pytest.mark.parametrize("each", [1, 4, 12])
def test_non_inferiority_is_rarely_shown_of_what_is_inferior(each):
    rng, runs, margin = np.random.default_rng(each), 2000, 0.10
    items = 96 if each < 12 else 192
    names = [f"d{i // each}" for i in range(items)]
    shown = 0
    for _ in range(runs):
        # a true loss at the margin; how easily a document loses its facts varies (ICC 0.2)
        rate = rng.beta(0.4, 3.6, items // each) if each > 1 else np.full(items, margin)
        lost = rng.random(items) < np.repeat(rate, each)
        base = np.ones(items)
        one = proportion_loss_interval(base, base - lost, names, confidence=0.99)
        shown += one.high < margin
    not_above(shown / runs, 0.03, runs)


def test_null_proportions_are_rarely_called_a_loss():
    rng, runs, items = np.random.default_rng(9), 2000, 96
    names = [f"d{i // 4}" for i in range(items)]
    false = 0
    for _ in range(runs):
        base = (rng.random(items) > 0.05).astype(float)
        head = (rng.random(items) > 0.05).astype(float)
        one = proportion_loss_interval(base, head, names, confidence=0.99)
        false += one.low > 0 and mcnemar_p(base.tolist(), head.tolist()) < 0.01
    not_above(false / runs, 0.01, runs)
