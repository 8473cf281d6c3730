"""The exact work of each side: attended tokens and blocks, operations, peak bytes. No noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor

from msa_harness.client import CallFailedError, Worker
from msa_harness.protocol import ref
from msa_harness.records import WRONG, Sample
from msa_harness.stored import StoredSets
from msa_suites.session import SUBJECT, Session
from msa_suites.speed.series import Call, SpeedSeries, counted_series
from msa_suites.speed.work import count_work
from msa_suites.together import merged

#: Name of a counted series -> its unit.
UNITS = {
    "attended_tokens": "tokens",
    "attended_blocks": "blocks",
    "flops": "FLOP",
    "peak_bytes": "bytes",
}


def measure(session: Session) -> Iterator[list[Sample]]:
    """One batch of samples per side and pipeline, the sides at the same time.

    One thread each: torch counts operations and bytes of the calling thread only.
    """
    quiet = replace(session, threads=1)
    yield from merged([partial(_measure_side, quiet, label) for label in session.sides])


def _measure_side(session: Session, label: str) -> Iterator[list[Sample]]:
    wanted = [
        s
        for s in counted_series(session.cases)
        if session.picks(s.case.name) and not _is_done(session, s, label)
    ]
    if not wanted:
        return
    with session.worker(label) as worker:
        if "attend" not in session.card(label)["operations"]:
            absent = {f"work/{name}": unit for name, unit in UNITS.items()}
            yield session.missing("work", label, items=absent, why="it has no attend", skip=True)
            return
        for series in wanted:
            session.say(f"{label}: work of {series.case.name}")
            yield _count(session, worker, label, series)


def _is_done(session: Session, series: SpeedSeries, label: str) -> bool:
    key = ("work", f"work/peak_bytes/{series.case.name}", label, series.case.name)
    return key in session.done


def _count(session: Session, worker: Worker, label: str, series: SpeedSeries) -> list[Sample]:
    case, call = series.case, series.calls()[0]
    try:
        counts = _counts(worker, series, call)
    except CallFailedError as error:
        counts = dict.fromkeys(UNITS, f"{WRONG}{error.type}: {error.message}")
    return [
        Sample(
            suite="work",
            series=f"work/{name}/{case.name}",
            subject=label,
            unit=UNITS[name],
            item=case.name,
            value=None if isinstance(value, str) else float(value),
            detail=value if isinstance(value, str) else "",
            ran=session.ran(label),
            repro=session.repro("work"),
        )
        for name, value in counts.items()
    ]


def _counts(worker: Worker, series: SpeedSeries, call: Call) -> dict[str, int | str]:
    case = series.case
    counts: dict[str, int | str] = {}
    result = worker.call(SUBJECT, "attend", call.args, call.kwargs)
    selection = result[1] if isinstance(result, tuple | list) and len(result) == 2 else None
    if isinstance(selection, Tensor):
        work = count_work(selection, block=case.block, heads=case.Hq, dim=case.D)
        counts |= {"attended_tokens": work.tokens, "attended_blocks": work.blocks}
    worker.load("count", "msa_suites.speed.counting:count_operation")
    arguments = [ref(SUBJECT), "attend", *call.args]
    counts["flops"] = worker.call("count", "", arguments, call.kwargs)
    with StoredSets([{"args": call.args, "kwargs": call.kwargs}]) as sets:
        worker.put("work", sets)
    counts["peak_bytes"] = worker.memory(SUBJECT, "attend", "work")
    worker.drop("work")
    return counts
