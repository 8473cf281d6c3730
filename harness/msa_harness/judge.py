"""From samples and gates to verdicts: one per series, one for the run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import date

from msa_harness.gate import Gate
from msa_harness.gates import GateTable
from msa_harness.judge_exact import judge_alone, judge_exact, judge_hard
from msa_harness.judge_quality import judge_binary, judge_mean, no_signal
from msa_harness.judge_speed import is_control, judge_speed
from msa_harness.samples import Sample
from msa_harness.series import Mode, Series, gather, mean, screen
from msa_harness.verdicts import More, Outcome, SeriesVerdict, Verdict, worst

_WAIVABLE = (Verdict.REGRESSION, Verdict.INCONCLUSIVE, Verdict.REMOVED)


def judge(
    samples: Iterable[Sample],
    gates: GateTable,
    today: date,
    *,
    mode: Mode = "paired",
    suites: Collection[str] = (),
    seed: int = 0,
) -> Outcome:
    """Judge a run.

    Args:
        samples: All samples of the run, of both subjects.
        gates: The gates that hold, from the base revision.
        today: Decides which waivers still hold.
        mode: "paired" for a gate run; "unpaired" for two recorded runs; "alone" for head against
            fixed requirements.
        suites: Suites that must have measured something; one that did not is an ERROR.
        seed: Of the resampling.

    Returns:
        Series in order of appearance. A run that measured nothing is an ERROR, never a PASS.
    """
    rows = list(samples)
    names = dict.fromkeys(sample.series for sample in rows)
    gate_for = {name: gate for name in names if (gate := gates.gate_for(name)) is not None}
    everything = gather(rows, gate_for)
    verdicts = _ungated(rows, gate_for)
    speed = [one for one in everything.values() if one.gate.method == "speed"]
    for verdict in judge_speed(speed, everything, mode=mode):
        verdicts[verdict.name] = verdict
    for one in everything.values():
        if one.name not in verdicts:
            verdicts[one.name] = _judge_one(one, everything, mode, seed, gates.gates)
    verdicts |= _voided(everything, verdicts)
    waived = [_waived(verdicts[name], gates, today) for name in names]
    notes = [
        f"expired waiver for {waiver.series} ({waiver.expires}): {waiver.reason}"
        for waiver in gates.expired(today)
    ]
    silent = _silent_suites(waived, suites)
    notes += [f"suite {name} measured nothing that gates" for name in silent]
    if not waived:
        notes.append("nothing was measured")
    total = worst([series.verdict for series in waived] + [Verdict.ERROR] * bool(silent))
    return Outcome(total, tuple(waived), tuple(notes))


def needs_more(series: SeriesVerdict) -> More | None:
    """What to measure before the verdict is final.

    Returns:
        "more": further pairs; "confirm": a fresh set of pairs, items "confirm-00" and on; None:
        nothing would change it.
    """
    return series.more


def _judge_one(
    series: Series, everything: dict[str, Series], mode: Mode, seed: int, gates: Sequence[Gate]
) -> SeriesVerdict:
    method = series.gate.method
    if method == "report":
        role = "control" if is_control(series, gates) else "recorded"
        problem = screen(series, mode)
        if problem is not None and problem.verdict is Verdict.ERROR:
            return problem
        value, ceiling = mean(series.values("head").values()), series.gate.ceiling
        if value is not None and ceiling is not None and abs(value) > ceiling:
            reasons = dict.fromkeys(one.detail for one in series.head.values() if one.detail)
            note = f"wanted at most {ceiling:g}, got {value:.3g}"
            return series.verdict(Verdict.INVALID, "; ".join([note, *list(reasons)[:3]]))
        return series.verdict(Verdict.NO_SIGNAL, f"{role}, does not gate")
    problem = screen(series, mode)
    if problem is not None:
        return problem
    if method == "hard":
        return judge_hard(series)
    if mode == "alone":
        return no_signal(series, everything) or judge_alone(series)
    if method == "exact":
        return judge_exact(series)
    if method == "binary":
        return judge_binary(series, everything)
    return no_signal(series, everything) or judge_mean(series, seed=seed)


def _voided(
    everything: dict[str, Series], verdicts: dict[str, SeriesVerdict]
) -> dict[str, SeriesVerdict]:
    """Clock times of a suite whose conditions were out of bounds; wrong answers stay wrong."""
    broken = {
        one.suite: verdicts[one.name]
        for one in everything.values()
        if one.gate.method == "report"
        and one.gate.ceiling is not None
        and verdicts[one.name].verdict is Verdict.INVALID
    }
    return {
        one.name: replace(
            verdicts[one.name].noted(f"{found.name}: {found.note}", Verdict.INVALID), more=None
        )
        for one in everything.values()
        if one.gate.method == "speed"
        and (found := broken.get(one.suite)) is not None
        and verdicts[one.name].effect is not None
    }


def _ungated(rows: list[Sample], gate_for: dict[str, Gate]) -> dict[str, SeriesVerdict]:
    """A series that nobody gates would be a hole in the gate."""
    return {
        sample.series: SeriesVerdict(
            name=sample.series,
            suite=sample.suite,
            unit=sample.unit,
            direction="lower",
            verdict=Verdict.ERROR,
            note="no [[gate]] in gates.toml matches this series",
            repro=sample.repro,
        )
        for sample in rows
        if sample.series not in gate_for
    }


def _waived(series: SeriesVerdict, gates: GateTable, today: date) -> SeriesVerdict:
    waiver = gates.waiver_for(series.name, today)
    if waiver is None or series.verdict not in _WAIVABLE:
        return series
    text = f"{series.verdict.value} waived until {waiver.expires}: {waiver.reason}"
    return series.noted(text, Verdict.WAIVED)


def _silent_suites(series: list[SeriesVerdict], suites: Collection[str]) -> list[str]:
    loud = {one.suite for one in series if one.verdict is not Verdict.NO_SIGNAL}
    wanted = dict.fromkeys([*suites, *(one.suite for one in series)])
    return [name for name in wanted if name not in loud]
