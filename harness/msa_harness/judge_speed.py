"""Speed: paired log ratios over process pairs, two bounds, Holm, a confirmation, a control.

REGRESSION needs the lower bound of the slowdown above tau after Holm's adjustment over all speed
series, and the same again from a fresh set of pairs (items "confirm-..."), judged alone so that
the choice of the series does not bias it. PASS needs the upper bound below the margin. If the
control series, whose code is the same on both sides, moves beyond the stated drift, the machine
moved and nothing that was measured beside it counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from msa_harness.gate import Gate
from msa_harness.samples import log_ratio
from msa_harness.series import Mode, Series, screen
from msa_harness.statistics import (
    Interval,
    detectable,
    holm,
    log_ratio_interval,
    welch_log_interval,
)
from msa_harness.verdicts import More, SeriesVerdict, Verdict

CONFIRM: Final = "confirm"


def judge_speed(
    series: Iterable[Series], everything: dict[str, Series], *, mode: Mode
) -> list[SeriesVerdict]:
    """Verdicts on all speed series of a run, and on the control series beside them.

    Args:
        series: Those whose gate has the method "speed".
        everything: All series of the run by name, the controls among them.
        mode: "paired" for pairs of processes, "unpaired" for two recorded runs.
    """
    verdicts: list[SeriesVerdict] = []
    measured: list[tuple[Series, Interval | None]] = []
    controls: dict[str, SeriesVerdict] = {}
    for one in series:
        for control in _controls(one.gate, everything):
            if control.name not in controls:
                controls[control.name] = _control_verdict(control, one.gate, mode)
        problem = screen(one, mode) or _not_positive(one)
        if problem is not None:
            verdicts.append(problem)
        elif mode == "alone":
            verdicts.append(one.verdict(Verdict.NEW, "measured alone"))
        else:
            measured.append((one, _interval(one, confirm=False, mode=mode)))
    adjusted = _adjusted(measured)
    for one, first in measured:
        verdict = _verdict(one, first, adjusted.get(one.name, 1.0), mode)
        verdicts.append(_controlled(verdict, one, everything, controls))
    return verdicts + list(controls.values())


def is_control(series: Series, gates: Iterable[Gate]) -> bool:
    """Whether a series serves as control of one of the gates."""
    return any(gate.control and fnmatchcase(series.name, gate.control) for gate in gates)


def _items(series: Series, *, confirm: bool) -> list[str]:
    return [item for item in series.paired() if item.startswith(CONFIRM) is confirm]


def _interval(series: Series, *, confirm: bool, mode: Mode) -> Interval | None:
    """Interval of the log of the slowdown; None with fewer than two pairs."""
    base, head = series.values("base"), series.values("head")
    confidence = series.gate.confidence
    if mode == "unpaired":
        if confirm or min(len(base), len(head)) < 2:
            return None
        return welch_log_interval(list(base.values()), list(head.values()), confidence=confidence)
    items = _items(series, confirm=confirm)
    if len(items) < 2:
        return None
    ratios = [log_ratio(series.base[item], series.head[item]) for item in items]
    return log_ratio_interval(ratios, confidence=confidence)


def _not_positive(series: Series) -> SeriesVerdict | None:
    values = [*series.values("base").values(), *series.values("head").values()]
    values += [seconds for sample in series.all() for seconds in sample.raw]
    if min(values) > 0:
        return None
    return series.verdict(Verdict.ERROR, f"wanted positive seconds, got {min(values)}")


def _adjusted(measured: Iterable[tuple[Series, Interval | None]]) -> dict[str, float]:
    p_values = {
        one.name: first.p_above(math.log1p(one.gate.threshold))
        for one, first in measured
        if first is not None
    }
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def _verdict(series: Series, first: Interval | None, adjusted: float, mode: Mode) -> SeriesVerdict:
    gate = series.gate
    if first is None:
        few = series.verdict(Verdict.INCONCLUSIVE, "fewer than two pairs of processes")
        return replace(few, n=len(series.paired()), more=None if mode == "unpaired" else "more")
    tau, margin = math.log1p(gate.threshold), math.log1p(gate.margin)
    suspect = adjusted < 1 - gate.confidence
    confirmed = _interval(series, confirm=True, mode=mode)
    if mode == "unpaired":
        note = "from two recorded runs, without fresh pairs"
        if suspect:
            return _numbers(series, first, Verdict.REGRESSION, note)
        return _numbers(series, first, _by_bounds(first, tau, margin), note)
    # A series that was sent to confirmation stays there when Holm's family changes.
    if suspect or (confirmed is not None and first.low > tau):
        if confirmed is None or confirmed.n < first.n:
            seen = 0 if confirmed is None else confirmed.n
            note = f"slower; to be confirmed by as many fresh pairs ({seen} of {first.n})"
            return _numbers(series, first, Verdict.INCONCLUSIVE, note, "confirm")
        return _after_confirmation(series, first, confirmed)
    settled = first.high < margin and first.low <= tau
    if first.n < gate.pairs or (not settled and first.n < gate.max_pairs):
        note = f"{first.n} pairs, at most {gate.max_pairs}"
        verdict = _by_bounds(first, tau, margin)
        if not settled:
            verdict = Verdict.INCONCLUSIVE
        return _numbers(series, first, verdict, note, "more")
    note = ""
    if first.low > tau:
        note = "slower by its own bound, not after Holm's adjustment over all speed series"
    return _numbers(series, first, _by_bounds(first, tau, margin), note)


def _after_confirmation(series: Series, first: Interval, confirmed: Interval) -> SeriesVerdict:
    gate = series.gate
    tau, margin = math.log1p(gate.threshold), math.log1p(gate.margin)
    seen = f"first set {math.expm1(first.estimate):+.1%} over {first.n} pairs"
    if confirmed.low > tau:
        note = f"confirmed by {confirmed.n} fresh pairs; {seen}"
        return _numbers(series, confirmed, Verdict.REGRESSION, note)
    note = f"{seen}, not confirmed by {confirmed.n} fresh pairs, which are judged alone"
    return _numbers(series, confirmed, _by_bounds(confirmed, tau, margin), note)


def _by_bounds(interval: Interval, tau: float, margin: float) -> Verdict:
    if interval.high < -tau:
        return Verdict.IMPROVED
    return Verdict.PASS if interval.high < margin else Verdict.INCONCLUSIVE


def _numbers(
    series: Series, interval: Interval, verdict: Verdict, note: str, more: More | None = None
) -> SeriesVerdict:
    gate = series.gate
    mde = detectable(
        interval.se,
        interval.df,
        threshold=math.log1p(gate.threshold),
        confidence=gate.confidence,
    )
    # Geometric means over processes: near the effect, which compares calls made side by side.
    base, head = (_geometric(series.values(subject).values()) for subject in ("base", "head"))
    return replace(
        series.verdict(verdict, note),
        base=base,
        head=head,
        effect=math.expm1(interval.estimate),
        low=_ratio(interval.low),
        high=_ratio(interval.high),
        n=interval.n,
        mde=_ratio(mde),
        more=more,
    )


def _ratio(log: float) -> float:
    # With two wild pairs a bound leaves the range of a float; it says "unknown" long before.
    return math.expm1(min(log, 700.0))


def _geometric(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def _controls(gate: Gate, everything: dict[str, Series]) -> list[Series]:
    if not gate.control:
        return []
    return [one for name, one in everything.items() if fnmatchcase(name, gate.control)]


def _control_verdict(control: Series, gate: Gate, mode: Mode) -> SeriesVerdict:
    """PASS where an unchanged kernel stayed within the drift on every set of pairs, or INVALID."""
    judged = replace_gate(control, gate)
    problem = screen(judged, mode) or _not_positive(judged)
    if problem is not None:
        invalid = mode != "alone"
        return problem.noted("control", Verdict.INVALID if invalid else problem.verdict)
    shown = judged.verdict(Verdict.PASS, "control")
    for confirm in (False, True):
        interval = _interval(judged, confirm=confirm, mode=mode)
        if interval is None:
            continue
        limit = math.log1p(gate.drift)
        if not confirm:
            shown = _numbers(judged, interval, Verdict.PASS, "control")
        if interval.low > limit or interval.high < -limit:
            low, high = _ratio(interval.low), _ratio(interval.high)
            note = (
                f"control moved by {_ratio(interval.estimate):+.1%} [{low:+.1%}, {high:+.1%}], "
                f"allowed {gate.drift:.1%}: the machine changed between base and head"
            )
            return _numbers(judged, interval, Verdict.INVALID, note)
    return replace(shown, threshold=gate.drift, margin=None)


def replace_gate(series: Series, gate: Gate) -> Series:
    """The same samples under another gate."""
    return Series(series.name, series.suite, gate, series.base, series.head)


def _controlled(
    verdict: SeriesVerdict,
    series: Series,
    everything: dict[str, Series],
    controls: dict[str, SeriesVerdict],
) -> SeriesVerdict:
    gate = series.gate
    if not gate.control:
        return verdict
    own = [controls[control.name] for control in _controls(gate, everything)]
    if not own:
        note = f"no control series {gate.control!r} was measured beside it"
        return replace(verdict.noted(note, Verdict.INVALID), more=None)
    moved = [control for control in own if control.verdict is Verdict.INVALID]
    if moved:
        note = f"{moved[0].name}: {moved[0].note}"
        return replace(verdict.noted(note, Verdict.INVALID), more=None)
    return verdict
