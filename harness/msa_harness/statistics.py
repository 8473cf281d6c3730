"""The statistics of the gate, written once.

All bounds are one-sided at the stated confidence, so `low` and `high` together hold the truth with
probability 2 * confidence - 1. Positive differences mean that head is worse; callers orient them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Array = npt.NDArray[np.float64]

POWER = 0.9
DRAWS = 4000
# Below this many clusters one resample in a hundred repeats a single cluster: no usable quantile.
FEWEST_FOR_BOOTSTRAP = 5


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its one-sided bounds.

    Attributes:
        estimate: The estimate.
        low: Lower bound.
        high: Upper bound.
        se: Standard error of the estimate.
        df: Degrees of freedom of the standard error.
        n: Independent samples (pairs, clusters) behind it.
    """

    estimate: float
    low: float
    high: float
    se: float
    df: float
    n: int

    def p_above(self, limit: float) -> float:
        """One-sided p value of "the truth is at most `limit`" (Student's t)."""
        if self.se == 0.0:
            return 0.0 if self.estimate > limit else 1.0
        return float(stats.t.sf((self.estimate - limit) / self.se, self.df))


def _array(name: str, values: Sequence[float]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name}: wanted a list of finite numbers, got {values!r:.120}")
    return array


def _at_least(name: str, number: int, least: int) -> None:
    if number < least:
        raise ValueError(f"{name}: wanted at least {least}, got {number}")


def _student(estimate: float, se: float, df: float, n: int, confidence: float) -> Interval:
    half = float(stats.t.ppf(confidence, df)) * se if se > 0 else 0.0
    return Interval(estimate, estimate - half, estimate + half, se, df, n)


def log_ratio_interval(
    base: Sequence[float], head: Sequence[float], *, confidence: float
) -> Interval:
    """Student interval of the mean of log(head / base) over process pairs.

    Args:
        base: One positive number per pair, seconds.
        head: The same pairs.
        confidence: Of each bound.

    Raises:
        ValueError: Fewer than two pairs, unequal lengths, or a number that is not positive.
    """
    logs = [_logs("base", base), _logs("head", head)]
    if logs[0].size != logs[1].size:
        raise ValueError(f"head: wanted {logs[0].size} values as in base, got {logs[1].size}")
    _at_least("pairs", logs[0].size, 2)
    ratio = logs[1] - logs[0]
    se = float(ratio.std(ddof=1)) / math.sqrt(ratio.size)
    return _student(float(ratio.mean()), se, ratio.size - 1, ratio.size, confidence)


def welch_log_interval(
    base: Sequence[float], head: Sequence[float], *, confidence: float
) -> Interval:
    """Welch interval of mean log(head) - mean log(base), for runs that were not paired.

    Args:
        base: One positive number per process of the first run, seconds.
        head: One positive number per process of the second run.
        confidence: Of each bound.

    Raises:
        ValueError: Fewer than two processes on a side, or a number that is not positive.
    """
    logs = [_logs("base", base), _logs("head", head)]
    _at_least("processes", min(part.size for part in logs), 2)
    parts = [float(part.var(ddof=1)) / part.size for part in logs]
    estimate = float(logs[1].mean() - logs[0].mean())
    total = sum(parts)
    if total == 0.0:
        return _student(estimate, 0.0, 1.0, min(part.size for part in logs), confidence)
    shares = [part / total for part in parts]  # first, or the squares underflow
    df = 1.0 / sum(share**2 / (part.size - 1) for share, part in zip(shares, logs, strict=True))
    n = min(part.size for part in logs)
    return _student(estimate, math.sqrt(total), df, n, confidence)


def _logs(name: str, values: Sequence[float]) -> Array:
    array = _array(name, values)
    if (array <= 0).any():
        raise ValueError(f"{name}: wanted positive numbers, got {float(array.min())}")
    return np.log(array)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the given order."""
    if not p_values:
        return []
    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def detectable(
    se: float, df: float, *, threshold: float, confidence: float, power: float = POWER
) -> float:
    """Smallest true effect whose lower bound exceeds `threshold` with the given power."""
    if se == 0.0:
        return threshold
    return threshold + se * float(stats.t.ppf(confidence, df) + stats.t.ppf(power, df))


def _by_cluster(values: Array, clusters: Sequence[str]) -> tuple[Array, Array]:
    """Sum and number of the values of each cluster; an empty name is a cluster of its own."""
    if len(clusters) != values.size:
        raise ValueError(f"clusters: wanted {values.size} names, got {len(clusters)}")
    index: dict[object, int] = {}
    where = [index.setdefault(name or i, len(index)) for i, name in enumerate(clusters)]
    sums = np.bincount(where, weights=values, minlength=len(index)).astype(np.float64)
    return sums, np.bincount(where, minlength=len(index)).astype(np.float64)


def cluster_mean_interval(
    differences: Sequence[float],
    clusters: Sequence[str],
    *,
    confidence: float,
    seed: int,
    draws: int = DRAWS,
) -> Interval:
    """Paired bootstrap of a mean difference, clusters (documents) resampled whole.

    The bootstrap is studentised (bootstrap-t): by simulation its bounds miss as often as they say
    with 8 clusters, where percentile and BCa bounds miss four times as often. With fewer than five
    clusters Student's t over clusters takes its place.

    Args:
        differences: One per item, positive where head is worse.
        clusters: Cluster of each item; an empty name stands for a cluster of one.
        confidence: Of each bound.
        seed: Of the resampling; the same seed gives the same bounds.
        draws: Resamples.

    Raises:
        ValueError: Fewer than two clusters, unequal lengths, or a number that is not finite.
    """
    sums, sizes = _by_cluster(_array("differences", differences), clusters)
    count = sums.size
    _at_least("clusters", count, 2)
    estimate = float(sums.sum() / sizes.sum())
    se = _cluster_se(sums, sizes, estimate)
    plain = _student(estimate, se, count - 1, count, confidence)
    if se == 0.0 or count < FEWEST_FOR_BOOTSTRAP:
        return plain
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1.0 / count), size=draws).astype(np.float64)
    total = weights @ sizes  # [draws]
    means = weights @ sums / total
    squares = (
        weights @ sums**2 - 2 * means * (weights @ (sums * sizes)) + means**2 * (weights @ sizes**2)
    )
    spread = np.sqrt(np.maximum(squares, 0.0) * count / (count - 1)) / total
    # A resample without spread (the few clusters that differ were not drawn) would divide by zero;
    # it is scored with the spread of the sample itself.
    spread = np.where(spread > 1e-3 * se, spread, se)
    low, high = np.quantile((means - estimate) / spread, [1 - confidence, confidence])
    return Interval(
        estimate, estimate - float(high) * se, estimate - float(low) * se, se, count - 1, count
    )


def _cluster_se(sums: Array, sizes: Array, estimate: float) -> float:
    count = sums.size
    residual = sums - estimate * sizes
    return math.sqrt(float(residual @ residual) * count / (count - 1)) / float(sizes.sum())


def mcnemar_p(base: Sequence[float], head: Sequence[float]) -> float:
    """One-sided exact McNemar p value that head succeeds less often than base.

    Args:
        base: 1.0 success, 0.0 failure, one per item.
        head: The same items.
    """
    lost, won = discordant(base, head)
    if lost <= won:
        return 1.0
    table = [[0, lost], [won, 0]]
    return float(mcnemar(table, exact=True).pvalue) / 2


def discordant(base: Sequence[float], head: Sequence[float]) -> tuple[int, int]:
    """How many items head lost against base, and how many it won."""
    pairs = list(zip(base, head, strict=True))
    return sum(b > h for b, h in pairs), sum(h > b for b, h in pairs)


def proportion_loss_interval(
    base: Sequence[float], head: Sequence[float], clusters: Sequence[str], *, confidence: float
) -> Interval:
    """Interval of the loss of a paired proportion (base - head), clusters kept whole.

    Bonett and Price's adjustment, something added to each discordant cell, so that a run without a
    discordant item still has a bound; the variance is cluster-robust. Items apart, one item is
    added to each; items that share clusters, a cluster of the square root of their mean size: by
    simulation (loss at the margin, ICC 0.2) a false claim of non-inferiority then stays near its
    nominal rate, where one item is claimed wrongly seven times as often. The estimate is the plain
    difference, the bounds are those of the adjusted one.

    Args:
        base: 1.0 success, 0.0 failure, one per item.
        head: The same items.
        clusters: Cluster (document) of each item; an empty name stands for a cluster of one.
        confidence: Of each bound.

    Raises:
        ValueError: No item, unequal lengths, or a value that is neither 0 nor 1.
    """
    success = [_array("base", base), _array("head", head)]
    for part in success:
        if not np.isin(part, (0.0, 1.0)).all():
            raise ValueError(f"binary values: wanted 0 or 1, got {sorted(set(part.tolist()))[:5]}")
    if success[0].size != success[1].size:
        raise ValueError(f"head: wanted {success[0].size} values as in base, got {len(head)}")
    _at_least("items", success[0].size, 1)
    loss = success[0] - success[1]
    sums, sizes = _by_cluster(loss, clusters)
    extra = math.sqrt(float(sizes.mean()))
    sums, sizes = np.append(sums, (extra, -extra)), np.append(sizes, (extra, extra))
    centre = float(sums.sum() / sizes.sum())
    se = _cluster_se(sums, sizes, centre)
    adjusted = _student(centre, se, sums.size - 1, sums.size - 2, confidence)
    return Interval(
        float(loss.mean()),
        max(-1.0, adjusted.low),
        min(1.0, adjusted.high),
        se,
        adjusted.df,
        adjusted.n,
    )


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's two-sided interval of a proportion.

    Raises:
        ValueError: Not 0 <= successes <= n, or n is 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"successes, n: wanted 0 <= successes <= n, n > 0, got {successes}, {n}")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return float(low), float(high)


def items_needed(
    discordance: float, margin: float, *, confidence: float = 0.95, power: float = POWER
) -> int:
    """Paired items needed to show non-inferiority of a proportion.

    Args:
        discordance: Share of items on which the two disagree.
        margin: Non-inferiority margin, as a share.
        confidence: One-sided.
        power: Chance to show it when there is no difference.
    """
    total = float(stats.norm.ppf(confidence) + stats.norm.ppf(power))
    return math.ceil(total**2 * discordance / margin**2)
