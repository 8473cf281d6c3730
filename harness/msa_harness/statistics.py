"""The statistics of the gate, written once.

All bounds are one-sided at the stated confidence, so `low` and `high` together hold the truth with
probability 2 * confidence - 1. Positive differences mean that head is worse; callers orient them.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Array = npt.NDArray[np.float64]

POWER = 0.9
#: Share of the pairs that is left out at each end. Strangers on a shared machine spoil single
#: pairs: with a plain mean such a pair hides a slowdown that all the others show.
TRIMMED = 0.2


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

    def upper(self, confidence: float) -> float:
        """Upper bound at another confidence (Student's t)."""
        return self.estimate + _half(self.se, self.df, confidence)


def finite_array(name: str, values: Sequence[float]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name}: wanted a list of finite numbers, got {values!r:.120}")
    return array


def at_least(name: str, number: int, least: int) -> None:
    if number < least:
        raise ValueError(f"{name}: wanted at least {least}, got {number}")


def _half(se: float, df: float, confidence: float) -> float:
    return float(stats.t.ppf(confidence, df)) * se if se > 0 else 0.0


def student_interval(estimate: float, se: float, df: float, n: int, confidence: float) -> Interval:
    half = _half(se, df, confidence)
    return Interval(estimate, estimate - half, estimate + half, se, df, n)


def log_ratio_interval(ratios: Sequence[float], *, confidence: float) -> Interval:
    """Interval of the centre of log(head / base) over process pairs: a trimmed mean.

    A fifth of the pairs is left out at each end (none of fewer than five); the standard error is
    that of the winsorised ratios (Tukey and McLaughlin 1963), Student's t has the degrees of
    freedom of what is left.

    Args:
        ratios: log(head / base), one per pair.
        confidence: Of each bound.

    Raises:
        ValueError: Fewer than two pairs, or a number that is not finite.
    """
    ratio = np.sort(finite_array("ratios", ratios))
    n = ratio.size
    at_least("pairs", n, 2)
    cut = int(TRIMMED * n)
    left = n - 2 * cut
    inner = ratio[cut : n - cut]
    spread = float(ratio.clip(inner[0], inner[-1]).std(ddof=1))
    se = spread * math.sqrt(n) / left
    return student_interval(float(inner.mean()), se, left - 1, n, confidence)


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
    at_least("processes", min(part.size for part in logs), 2)
    parts = [float(part.var(ddof=1)) / part.size for part in logs]
    estimate = float(logs[1].mean() - logs[0].mean())
    total = sum(parts)
    if total == 0.0:
        return student_interval(estimate, 0.0, 1.0, min(part.size for part in logs), confidence)
    shares = [part / total for part in parts]  # first, or the squares underflow
    df = 1.0 / sum(share**2 / (part.size - 1) for share, part in zip(shares, logs, strict=True))
    n = min(part.size for part in logs)
    return student_interval(estimate, math.sqrt(total), df, n, confidence)


def _logs(name: str, values: Sequence[float]) -> Array:
    array = finite_array(name, values)
    if (array <= 0).any():
        raise ValueError(f"{name}: wanted positive numbers, got {float(array.min())}")
    return np.log(array)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the given order."""
    if not p_values:
        return []
    # It collects garbage at its end, 0.1 s among a judge's objects: these need no looking through.
    gc.freeze()
    try:
        return [float(p) for p in multipletests(list(p_values), method="holm")[1]]
    finally:
        gc.unfreeze()


def detectable(
    se: float, df: float, *, threshold: float, confidence: float, power: float = POWER
) -> float:
    """Smallest true effect whose lower bound exceeds `threshold` with the given power."""
    if se == 0.0:
        return threshold
    return threshold + se * float(stats.t.ppf(confidence, df) + stats.t.ppf(power, df))


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
