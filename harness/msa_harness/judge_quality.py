"""Quality: paired means of continuous metrics, and paired proportions of recall."""

from __future__ import annotations

from dataclasses import replace

from msa_harness.clustered import (
    cluster_mean_interval,
    discordant,
    mcnemar_p,
    proportion_loss_interval,
)
from msa_harness.series import Series, lost_items, mean
from msa_harness.statistics import Interval, detectable
from msa_harness.verdicts import SeriesVerdict, Verdict


def judge_mean(series: Series, *, seed: int) -> SeriesVerdict:
    """Verdict on a continuous metric: bootstrap of the paired mean, clustered by document."""
    problem = lost_items(series)
    if problem is not None:
        return problem
    gate, items = series.gate, series.paired()
    base, head = series.values("base"), series.values("head")
    sign = 1.0 if gate.direction == "lower" else -1.0
    differences = [sign * (head[item] - base[item]) for item in items]
    clusters = series.clusters(items)
    if _number_of_clusters(clusters) < 2:
        note = f"wanted items from at least two documents, got {len(items)} from one"
        return series.verdict(Verdict.INCONCLUSIVE, note)
    interval = cluster_mean_interval(differences, clusters, confidence=gate.confidence, seed=seed)
    if interval.low > gate.threshold:
        verdict, note = Verdict.REGRESSION, "worse than the threshold allows"
    elif interval.high < -gate.threshold:
        verdict, note = Verdict.IMPROVED, ""
    elif interval.high < gate.margin:
        verdict, note = Verdict.PASS, ""
    else:
        verdict, note = Verdict.INCONCLUSIVE, "the upper bound is not below the margin"
    return _numbers(series, items, interval, verdict, note)


def judge_binary(series: Series, everything: dict[str, Series]) -> SeriesVerdict:
    """Verdict on recall: exact McNemar and a clustered non-inferiority interval.

    REGRESSION needs both: the exact test guards against few discordant items, the clustered bound
    against facts that fail together because they share a context.
    """
    gate, items = series.gate, series.paired()
    problem = lost_items(series) or no_signal(series, everything) or _not_binary(series)
    if problem is not None:
        return problem
    better = 1.0 if gate.direction == "higher" else 0.0
    base, head = (
        [float(values[item] == better) for item in items]
        for values in (series.values("base"), series.values("head"))
    )
    interval = proportion_loss_interval(
        base, head, series.clusters(items), confidence=gate.confidence
    )
    p_value = mcnemar_p(base, head)
    lost, won = discordant(base, head)
    note = f"{lost} lost, {won} won of {len(items)} items, McNemar p {p_value:.2g}"
    if interval.low > gate.threshold and p_value < 1 - gate.confidence:
        verdict = Verdict.REGRESSION
    elif interval.high < -gate.threshold and mcnemar_p(head, base) < 1 - gate.confidence:
        verdict = Verdict.IMPROVED
    elif interval.high < gate.margin:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.INCONCLUSIVE
    return _numbers(series, items, interval, verdict, note)


def no_signal(series: Series, everything: dict[str, Series]) -> SeriesVerdict | None:
    """NO_SIGNAL where dense attention itself fails the task; INVALID where nobody measured it.

    Base's dense attention where it was measured: what head does to torch cannot take the signal.
    """
    gate = series.gate
    if not gate.signal_from:
        return None
    name = gate.signal_from.replace("{series}", series.name)
    dense = everything.get(name)
    values = dense and (dense.values("base") or dense.values("head"))
    if not values:
        return series.verdict(Verdict.INVALID, f"wanted the dense reference {name}, got none")
    score = mean(values.values())
    if score is None or score >= gate.signal_floor:
        return None
    note = f"dense scores {score:.2f}, under {gate.signal_floor:.2f}: no signal, does not gate"
    return series.verdict(Verdict.NO_SIGNAL, note)


def _not_binary(series: Series) -> SeriesVerdict | None:
    for sample in series.all():
        if sample.value not in (None, 0.0, 1.0):
            note = f"{sample.item}: wanted 0 or 1, got {sample.value}"
            return series.verdict(Verdict.ERROR, note)
    return None


def _number_of_clusters(clusters: list[str]) -> int:
    return len({name or i for i, name in enumerate(clusters)})


def _numbers(
    series: Series, items: list[str], interval: Interval, verdict: Verdict, note: str
) -> SeriesVerdict:
    gate = series.gate
    base, head = series.values("base"), series.values("head")
    return replace(
        series.verdict(verdict, note),
        base=mean(base[item] for item in items),
        head=mean(head[item] for item in items),
        effect=interval.estimate,
        low=interval.low,
        high=interval.high,
        n=len(items),
        mde=detectable(
            interval.se, interval.df, threshold=gate.threshold, confidence=gate.confidence
        ),
    )
