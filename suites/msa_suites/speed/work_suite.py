"""The exact work of each side: attended tokens and blocks, operations, peak bytes. No noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from msa_harness.client import CallFailedError, Worker
from msa_harness.protocol import ref
from msa_harness.records import WRONG, Sample
from msa_harness.stored import StoredSets
from msa_suites.models.attention import why_not
from msa_suites.session import SUBJECT, Session
from msa_suites.speed.series import SpeedSeries, counted_series
from msa_suites.speed.work import count_work
from msa_suites.together import merged

#: Name of a counted series -> its unit.
UNITS = {
    "attended_tokens": "tokens",
    "attended_blocks": "blocks",
    "flops": "FLOP",
    "peak_bytes": "bytes",
    "held_bytes": "bytes",
}
_UNITS_AROUND = UNITS | {"planning": "operators"}


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around the operations, and is counted whole.

    Attributes:
        target: counts it in the subject's process; takes the implementation and a device if it
            runs a model.
        counts: names of what it returns.
        model: whether the implementation runs inside a model, which needs its parts.
    """

    target: str
    counts: tuple[str, ...]
    model: bool = False


_AROUND = {
    "cache": Around(
        "msa_suites.speed.cached_work:count_cache",
        (
            "flops/cache-decode",
            *(
                f"{kind}_bytes/cache-{call}"
                for kind in ("peak", "held")
                for call in ("append", "append-page", "decode")
            ),
        ),
    ),
    "retrofit": Around(
        "msa_suites.speed.retrofit_work:count_forward",
        (
            "flops/retrofit",
            "peak_bytes/retrofit",
            "held_bytes/retrofit",
            "planning/retrofit-step",
        ),
        model=True,
    ),
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
    # What base does not declare is not asked of head; what head alone has lost is missing there.
    sides = dict.fromkeys((session.reference, label))
    reasons = {
        one.case.name: next(
            filter(None, (session.why_not(side, one.operation, one.case) for side in sides)), None
        )
        for one in wanted
    }
    todo = [one for one in wanted if reasons[one.case.name] is None]
    for name, why in reasons.items():
        if why is not None:
            absent = {f"work/{kind}/{name}": unit for kind, unit in UNITS.items()}
            yield session.missing("work", label, items=absent, why=why, skip=True)
    # Outside implementations have neither: they would be the judge's.
    own = session.cases is None and "msa" in session.sides[label].attested
    around = {
        name: one
        for name, one in _AROUND.items()
        if own
        and not (one.model and why_not(session.card(label)["operations"]))
        and session.picks(name)
        and ("work", f"work/{one.counts[0]}", label, name) not in session.done
    }
    if not todo and not around:
        return
    with session.worker(label) as worker:
        for series in todo:
            session.say(f"{label}: work of {series.case.name}")
            counts = _guarded(partial(_counts, worker, series), UNITS)
            yield _samples(session, label, series.case.name, counts, f"/{series.case.name}")
        for name, one in around.items():
            session.say(f"{label}: work of the {name}")
            worker.load(name, one.target)
            given = (ref(SUBJECT), session.device) if one.model else ()
            counts = _guarded(partial(worker.call, name, "", given), one.counts)
            yield _samples(session, label, name, counts)


def _is_done(session: Session, series: SpeedSeries, label: str) -> bool:
    key = ("work", f"work/peak_bytes/{series.case.name}", label, series.case.name)
    return key in session.done


def _guarded(
    count: Callable[[], dict[str, int]], otherwise: Iterable[str]
) -> Mapping[str, int | str]:
    """Counts by name; what went wrong in their place where the call failed."""
    try:
        return count()
    except CallFailedError as error:
        return dict.fromkeys(otherwise, f"{WRONG}{error.type}: {error.message}")


def _samples(
    session: Session, label: str, item: str, counts: Mapping[str, int | str], of: str = ""
) -> list[Sample]:
    return [
        Sample(
            suite="work",
            series=f"work/{name}{of}",
            subject=label,
            unit=_UNITS_AROUND[name.partition("/")[0]],
            item=item,
            value=None if isinstance(value, str) else float(value),
            detail=value if isinstance(value, str) else "",
            ran=session.ran(label),
            repro=session.repro("work"),
        )
        for name, value in counts.items()
    ]


def _counts(worker: Worker, series: SpeedSeries) -> dict[str, int]:
    case, call, operation = series.case, series.first_call(), series.operation
    counts: dict[str, int] = {}
    result = worker.call(SUBJECT, operation, call.args, call.kwargs)
    selection = result[1] if isinstance(result, tuple | list) and len(result) == 2 else None
    shape = (sum(case.q_lens), case.Hkv, case.topk)
    if operation == "attend" and isinstance(selection, Tensor) and selection.shape == shape:
        lengths: dict[str, Any] = {name: call.kwargs[name] for name in ("cu_q", "cu_k")}
        work = count_work(selection, **lengths, block=case.block, heads=case.Hq, dim=case.D)
        counts |= {"attended_tokens": work.tokens, "attended_blocks": work.blocks}
    worker.load("count", "msa_suites.speed.counting:count_operation")
    arguments = [ref(SUBJECT), operation, *call.args]
    counts["flops"] = worker.call("count", "", arguments, call.kwargs)
    with StoredSets([{"args": call.args, "kwargs": call.kwargs}]) as sets:
        worker.put("work", sets)
    memory = worker.memory(SUBJECT, operation, "work")
    worker.drop("work")
    return {**counts, "peak_bytes": memory.peak, "held_bytes": memory.held}
