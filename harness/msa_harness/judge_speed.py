"""Speed: paired log ratios over process pairs, two bounds, a confirmation, Holm, a control.

A series whose first pairs put the lower bound of the slowdown above tau is suspect. Fresh pairs
(items "confirm-...") decide, judged alone, so that the choice of the series does not bias them:
REGRESSION needs the slowdown above tau there after Holm's adjustment over all suspects. They are
looked at after every `pairs` of them up to `max_pairs`, and the error that the gate allows is
shared out evenly among these looks: noise in the first of them does not lose a slowdown. PASS needs
the upper bound, which has a confidence of its own, below the margin. How noisy a series is, the
others say too (`moderated`). If the control series, whose code is the same on both sides, moves
beyond the stated drift, the machine moved and nothing that was measured beside it counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from msa_harness.gate import Gate
from msa_harness.moderated import moderated, prior_of
from msa_harness.series import Mode, Series, screen
from msa_harness.statistics import Interval, holm
from msa_harness.timed_pairs import (
    as_fraction,
    by_bounds,
    not_positive,
    pair_interval,
    pair_ratios,
    with_numbers,
)
from msa_harness.verdicts import SeriesVerdict, Verdict


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
    measured: list[_Measured] = []
    controls: dict[str, SeriesVerdict] = {}
    for one in series:
        for control in _controls(one.gate, everything):
            if control.name not in controls:
                controls[control.name] = _control_verdict(control, one.gate, mode)
        problem = screen(one, mode) or not_positive(one)
        if problem is not None:
            verdicts.append(problem)
        elif mode == "alone":
            verdicts.append(one.verdict(Verdict.NEW, "measured alone"))
        else:
            first = pair_interval(one, confirm=False, mode=mode)
            measured.append(_Measured(one, first, pair_interval(one, confirm=True, mode=mode)))
    if mode == "unpaired":
        decided = _recorded_verdicts(measured)
    else:
        measured = _moderated(measured)
        decided = _paired_verdicts(measured)
    for known, verdict in zip(measured, decided, strict=True):
        verdicts.append(_controlled(verdict, known.series, everything, controls))
    return verdicts + list(controls.values())


def is_control(series: Series, gates: Iterable[Gate]) -> bool:
    """Whether a series serves as control of one of the gates."""
    return any(gate.control and fnmatchcase(series.name, gate.control) for gate in gates)


@dataclass(frozen=True, slots=True)
class _Measured:
    """A series with the intervals of its first pairs and of the fresh ones, where it has them."""

    series: Series
    first: Interval | None
    fresh: Interval | None

    @property
    def tau(self) -> float:
        """Log of the slowdown that is allowed."""
        return math.log1p(self.series.gate.threshold)

    @property
    def suspect(self) -> bool:
        """Whether fresh pairs are to decide; who was sent to them stays there."""
        first = self.first
        if first is None or first.n < self.series.gate.pairs:
            return self.fresh is not None
        return self.fresh is not None or first.low > self.tau


def _moderated(measured: Sequence[_Measured]) -> list[_Measured]:
    """Both intervals of each timed series by what the first pairs of all say of the noise.

    Of as many pairs as every series has: a prior that changed with each pair that is added would
    open series again that were decided. A series computed from others has no noise of its own.
    """
    timed = {one.series.name for one in measured if any(sample.raw for sample in one.series.all())}
    begun = [
        list(pair_ratios(one.series, confirm=False).items())[: one.series.gate.pairs]
        for one in measured
        if one.series.name in timed and one.first and one.first.n >= one.series.gate.pairs
    ]
    prior = prior_of([dict(pairs) for pairs in begun])

    def by_prior(one: _Measured, interval: Interval | None) -> Interval | None:
        if interval is None or one.series.name not in timed:
            return interval
        return moderated(interval, prior, confidence=one.series.gate.confidence)

    return [
        replace(one, first=by_prior(one, one.first), fresh=by_prior(one, one.fresh))
        for one in measured
    ]


def _recorded_verdicts(measured: Sequence[_Measured]) -> list[SeriesVerdict]:
    """Of two recorded runs: Holm over all series, and nobody to ask for fresh pairs."""
    adjusted = _holm(measured, [one.first for one in measured])
    note = "from two recorded runs, without fresh pairs"
    found = []
    for one, p in zip(measured, adjusted, strict=True):
        if one.first is None:
            found.append(_too_few(one.series))
            continue
        slower = p < 1 - one.series.gate.confidence
        verdict = Verdict.REGRESSION if slower else by_bounds(one.first, one.series.gate)
        found.append(with_numbers(one.series, one.first, verdict, note))
    return found


def _paired_verdicts(measured: Sequence[_Measured]) -> list[SeriesVerdict]:
    suspects = [one for one in measured if one.suspect]
    adjusted = _holm(suspects, [one.fresh for one in suspects])
    p_values = {one.series.name: p for one, p in zip(suspects, adjusted, strict=True)}
    return [
        _confirmation(one, p_values[one.series.name]) if one.suspect else _first_verdict(one)
        for one in measured
    ]


def _holm(measured: Sequence[_Measured], intervals: Sequence[Interval | None]) -> list[float]:
    """Adjusted p values of "no slower than tau"; who has not been measured counts among them."""
    return holm(
        [
            1.0 if interval is None else interval.p_above(one.tau)
            for one, interval in zip(measured, intervals, strict=True)
        ]
    )


def _too_few(series: Series) -> SeriesVerdict:
    few = series.verdict(Verdict.INCONCLUSIVE, "fewer than two pairs of processes")
    return replace(few, n=len(series.paired()))


def _first_verdict(one: _Measured) -> SeriesVerdict:
    """Of a series that its first pairs did not show to be slower."""
    gate, first = one.series.gate, one.first
    if first is None:
        return replace(_too_few(one.series), more="more")
    verdict = by_bounds(first, gate)
    settled = verdict is not Verdict.INCONCLUSIVE
    if first.n < gate.pairs or (not settled and first.n < gate.max_pairs):
        note = f"{first.n} pairs, at most {gate.max_pairs}"
        return with_numbers(one.series, first, verdict, note, "more")
    return with_numbers(one.series, first, verdict, "")


def _confirmation(one: _Measured, adjusted: float) -> SeriesVerdict:
    """Of a suspect: its fresh pairs, judged alone; ``adjusted`` is their p value after Holm."""
    gate, first, fresh = one.series.gate, one.first, one.fresh
    seen = "too few first pairs"
    if first is not None:
        seen = f"first set {math.expm1(first.estimate):+.1%} over {first.n} pairs"
    if fresh is None or fresh.n < gate.pairs:
        count = 0 if fresh is None else fresh.n
        note = f"slower; to be confirmed by fresh pairs ({count} of {gate.pairs})"
        shown = first or fresh
        if shown is None:
            return replace(_too_few(one.series), more="confirm")
        return with_numbers(one.series, shown, Verdict.INCONCLUSIVE, note, "confirm")
    looks = max(gate.max_pairs // gate.pairs, 1)
    if adjusted < (1 - gate.confidence) / looks:
        note = f"confirmed by {fresh.n} fresh pairs; {seen}"
        return with_numbers(one.series, fresh, Verdict.REGRESSION, note)
    verdict = by_bounds(fresh, gate)
    note = f"{seen}, not confirmed by {fresh.n} fresh pairs, which are judged alone"
    if verdict is Verdict.INCONCLUSIVE and fresh.n + gate.pairs <= gate.max_pairs:
        return with_numbers(one.series, fresh, verdict, f"{note} so far", "confirm")
    return with_numbers(one.series, fresh, verdict, note)


def _controls(gate: Gate, everything: dict[str, Series]) -> list[Series]:
    if not gate.control:
        return []
    return [one for name, one in everything.items() if fnmatchcase(name, gate.control)]


def _control_verdict(control: Series, gate: Gate, mode: Mode) -> SeriesVerdict:
    """PASS where an unchanged kernel stayed within the drift on every set of pairs, or INVALID."""
    # The machine is to stand still: both directions at one confidence, and nothing is excluded.
    judged = replace_gate(control, replace(gate, pass_confidence=None, resolution=0.0))
    problem = screen(judged, mode) or not_positive(judged)
    if problem is not None:
        invalid = mode != "alone"
        return problem.noted("control", Verdict.INVALID if invalid else problem.verdict)
    shown = judged.verdict(Verdict.PASS, "control")
    for confirm in (False, True):
        interval = pair_interval(judged, confirm=confirm, mode=mode)
        if interval is None:
            continue
        limit = math.log1p(gate.drift)
        if not confirm:
            shown = with_numbers(judged, interval, Verdict.PASS, "control")
        if interval.low > limit or interval.high < -limit:
            moved, low, high = map(as_fraction, (interval.estimate, interval.low, interval.high))
            note = (
                f"control moved by {moved:+.1%} [{low:+.1%}, {high:+.1%}], "
                f"allowed {gate.drift:.1%}: the machine changed between base and head"
            )
            return with_numbers(judged, interval, Verdict.INVALID, note)
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
