"""Standard errors of many series, each moderated by what the others say of the machine.

Eight pairs of processes say little of a series' own variance: Student's t on the five degrees of
freedom that a trimmed mean leaves makes a bound three times as wide as the normal distribution
would. The series of a run share a machine and an hour, and their variances are of one size. What
they have in common is worth degrees of freedom, the more the less they spread: the empirical Bayes
variances of Smyth (2004, doi:10.2202/1544-6115.1027), equations of its sections 3 and 6. Series
whose noise is the same noise say it once: they count for as many as their correlation leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from msa_harness.statistics import Interval, log_ratio_interval, student_interval

#: Fewer series do not tell how far their variances lie apart.
LEAST_SERIES = 5
# Of the median: a variance below it is taken for this, or its logarithm would rule the others'.
_SMALLEST = 1e-5
# Degrees of freedom of the prior between which the root is looked for, halved.
_ROOTS = (1e-6, 1e8)


@dataclass(frozen=True, slots=True)
class Prior:
    """What a machine's series have in common: a scaled inverse chi-squared of their variances.

    Attributes:
        variance: Of one pair's log ratio.
        df: Degrees of freedom that it is worth; infinite where chance explains them all.
        known: Degrees of freedom of all series together: no variance is known better than that.
            Where series have correlation r, their variances have r squared: worth the less.
    """

    variance: float
    df: float
    known: float


def prior_of(series: Sequence[Mapping[str, float]]) -> Prior | None:
    """The common variance of series measured side by side.

    Args:
        series: Of each the log ratio of every pair of processes, by pair.

    Returns:
        None where nothing is to be learnt: fewer than `LEAST_SERIES`, or most without any spread.
    """
    if len(series) < LEAST_SERIES:
        return None
    both = sorted(set.intersection(*(set(one) for one in series)))
    shared = shared_noise([[one[pair] for pair in both] for one in series])
    return _fitted([log_ratio_interval([*one.values()], confidence=0.99) for one in series], shared)


def _fitted(intervals: Sequence[Interval], shared: float) -> Prior | None:
    """The prior by the moments of the logarithms of the variances."""
    variances = np.array([one.se**2 * one.n for one in intervals])
    half = np.array([one.df for one in intervals]) / 2
    middle = float(np.median(variances))
    if middle == 0.0:
        return None
    variances = variances.clip(_SMALLEST * middle)
    logs = np.log(variances) - digamma(half) + np.log(half)
    known = float(2 * half.sum()) / (1 + (half.size - 1) * shared)
    # Of the logarithms' variance, what their few degrees of freedom do not explain.
    between = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if between <= polygamma(1, _ROOTS[1]):
        return Prior(float((variances * half).sum() / half.sum()), math.inf, known)
    prior = float(brentq(lambda x: float(polygamma(1, x)) - between, *_ROOTS))
    centre = math.exp(float(logs.mean()) + float(digamma(prior)) - math.log(prior))
    return Prior(centre, 2 * prior, known)


def shared_noise(ratios: Sequence[Sequence[float]]) -> float:
    """Mean squared correlation of the rows with each other, less what chance makes it.

    Returns:
        Between 0 and 1; 1 where there are too few columns to tell.
    """
    rows = np.array([row for row in ratios if len(set(row)) > 1])
    if rows.ndim < 2 or len(rows) < 2 or rows.shape[1] <= 2:
        return 1.0
    squares = np.corrcoef(rows) ** 2
    mean = (float(squares.sum()) - len(rows)) / (len(rows) * (len(rows) - 1))
    chance = 1 / (rows.shape[1] - 1)
    return float(min(1.0, max(0.0, (mean - chance) / (1 - chance))))


def moderated(interval: Interval, prior: Prior | None, *, confidence: float) -> Interval:
    """The interval by the mean of its own variance and the prior's, weighted by their freedoms.

    Its own is kept where it is the larger. A series that is truly noisier than the others would be
    taken for a quiet one: of eleven, one twice as noisy missed the bound at 99.9 % in 1.1 % of
    simulations, and in 0.5 % so; all together then miss no more often than by their own variances.
    """
    if prior is None:
        return interval
    own = interval.se**2 * interval.n
    weight = 1.0 if math.isinf(prior.df) else prior.df / (prior.df + interval.df)
    variance = max(own, weight * prior.variance + (1 - weight) * own)
    df = min(interval.df + prior.df, max(prior.known, interval.df))
    se = math.sqrt(variance / interval.n)
    return student_interval(interval.estimate, se, df, interval.n, confidence)
