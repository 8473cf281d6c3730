"""The speed suite of a run: the timed series as pairs of workers drive them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor

from msa_harness.client import Timing
from msa_harness.pairs import Block, PairRunner, TimedSeries, first_blocks, more_blocks
from msa_harness.records import Sample
from msa_suites.inputs import Inputs
from msa_suites.session import SUBJECT, Session
from msa_suites.speed import spotcheck
from msa_suites.speed.series import DENSE_TARGET, SETS, SpeedSeries, speed_series
from msa_suites.speed.spotcheck import Pipeline

#: Rows of a timed output that are checked exactly.
CHECKED_ROWS = 12
#: Which argument gets fresh contents in every call: one that the output is linear in.
_VARY = {"attend": "2", "block_scores": "0", "select_blocks": "0", "sparse_decode": "2"}
#: Index queries times a power of two: other contents, and the very same selection in every dtype.
_SHIFT = {"attend": ("3",)}
#: Blocks and turns where one side is measured alone.
_ALONE_BLOCKS, _ALONE_TURNS = 2, 3


def measure(session: Session) -> Iterator[list[Sample]]:
    """The pairs that every series gets before it is judged."""
    runner = _runner(session)
    if skipped := _skipped(session):
        yield skipped
    gates = session.gates
    names = [one.name for one in runner.series]
    if session.paired and gates is not None:
        blocks = first_blocks(names, gates)
    else:
        blocks = [Block(f"pair-{n:02d}", frozenset(names)) for n in range(_ALONE_BLOCKS)]
    yield from runner.run(blocks, session.done)


def measure_more(session: Session, wanted: Mapping[str, str]) -> Iterator[list[Sample]]:
    """Further pairs of the series that the judge asks about."""
    assert session.gates is not None
    runner = _runner(session)
    known = {one.name for one in runner.series}
    asked = {name: request for name, request in wanted.items() if name in known}
    blocks = more_blocks(asked, session.done, session.gates)
    yield from runner.run(blocks, session.done)


def _runner(session: Session) -> PairRunner:
    table = [
        _timed(series, together=not session.paired)
        for series in _picked(session)
        if not _why_not(session, series)
    ]
    calls: dict[str, Any] = {"alternations": _ALONE_TURNS}
    gate = session.gates.gate_for("speed/prefill") if session.gates is not None else None
    if session.paired and gate is not None:
        calls = {"alternations": gate.alternations, "seconds": gate.seconds}
    return PairRunner(
        start=session.start,
        series=table,
        **calls,
        sides=tuple(session.sides),
        say=session.say,
        ran=session.ran,
        repro=lambda _name: session.repro("speed"),
    )


def _picked(session: Session) -> list[SpeedSeries]:
    table = speed_series(session.profile, dense=not session.paired, cases=session.cases)
    return [one for one in table if one.control or session.picks(one.name)]


def _why_not(session: Session, series: SpeedSeries) -> dict[str, str]:
    """Why a series is not timed, by side: each must offer what it calls."""
    if series.operation == "dense":
        return {}
    found = {
        label: session.why_not(label, series.operation, series.case) for label in session.sides
    }
    return {label: why for label, why in found.items() if why is not None}


def _skipped(session: Session) -> list[Sample]:
    """A sample of head that says why, for each series that is not timed.

    It is an error where head alone has lost what the series calls.
    """
    skipped = []
    for one in _picked(session):
        why = _why_not(session, one)
        if why and ("speed", one.name, "head", "all") not in session.done:
            known = session.reference in why
            text = why[session.reference] if known else why["head"]
            items = {one.name: "s"}
            skipped += session.missing("speed", "head", items=items, why=text, skip=known)
    return skipped


@cache
def _timed(series: SpeedSeries, *, together: bool) -> TimedSeries:
    """The series for the harness; made once, so that further pairs draw and expect nothing again.

    ``together``: MSA and dense of one length in turn, for their ratio. Otherwise all series take
    turns, so that the calls of each lie all over its block: a shared machine keeps one state for a
    second or so, and a series that is over by then knows only one.
    """
    dense = series.operation == "dense"
    rows = _checked_rows(series)

    @cache
    def drawn() -> list[Inputs]:
        return [series.draw(index) for index in range(SETS)]

    def sets() -> Sequence[Mapping[str, object]]:
        calls = (series.call(inputs) for inputs in drawn())
        return [{"args": list(c.args), "kwargs": dict(c.kwargs)} for c in calls]

    return TimedSeries(
        name=series.name,
        handle="dense" if dense else SUBJECT,
        operation="" if dense else series.operation,
        inputs=sets,
        target=DENSE_TARGET if dense else "",
        vary=() if dense else (_VARY[series.operation],),
        shift=_SHIFT.get(series.operation, ()),
        check=None if not rows else _checker(series, drawn, rows),
        rows=rows,
        control=series.control,
        repeats=_repeats(series),
        group=_group(series) if together else "all",
    )


def _repeats(series: SpeedSeries) -> int:
    """Calls in a turn: tens of milliseconds, so that a turn is worth its own cost, and no more.

    Many short turns of a series compare the two sides better than few long ones.
    """
    queries = sum(series.case.q_lens)
    if queries == 1:
        return 8
    if series.operation == "select_blocks":
        return 4
    return 2 if queries < 4096 or series.operation == "block_scores" else 1


def _group(series: SpeedSeries) -> str:
    compared = series.operation in ("attend", "dense") and not series.control
    return f"{series.case.dtype} {series.case.k_lens}" if compared else ""


def _checked_rows(series: SpeedSeries) -> tuple[int, ...]:
    """Rows of a series' output that are checked; dense attention is not ours to check."""
    if series.operation == "dense":
        return ()
    return tuple(spotcheck.sampled_rows(series.case, CHECKED_ROWS))


def _checker(
    series: SpeedSeries, drawn: Callable[[], list[Inputs]], rows: Sequence[int]
) -> Callable[[Timing], str]:
    """The sampled check of a series' output."""
    case = series.case

    @cache
    def given() -> list[Pipeline]:
        return [Pipeline(*inputs.tensors, case) for inputs in drawn()]

    def check(timing: Timing) -> str:
        return _check(series.operation, given()[timing.index], timing, rows, case.index_scale)

    return check


def _check(
    operation: str, given: Pipeline, timing: Timing, rows: Sequence[int], index_scale: float
) -> str:
    output = timing.output
    parts = list(output) if isinstance(output, list | tuple) else [output]
    if operation == "attend":
        out, selection = (*parts, None, None)[:2]
        return spotcheck.check_pipeline(given, out, selection, rows, value_scale=timing.scale)
    if operation == "sparse_decode":
        out = parts[0][0] if parts and isinstance(parts[0], Tensor) and parts[0].dim() else None
        return spotcheck.check_pipeline(given, out, None, rows, value_scale=timing.scale)
    if operation == "block_scores":
        return spotcheck.check_scores(given, output, rows, index_scale * timing.scale)
    return spotcheck.check_selection(given, output, rows)
