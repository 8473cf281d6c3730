"""The quality suite of a run: each side's model evaluated in a worker, item by item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from msa_harness.client import CallFailedError, Worker
from msa_harness.records import Sample
from msa_suites.models.attention import why_not
from msa_suites.quality.failing import failure
from msa_suites.quality.items import TASKS
from msa_suites.quality.samples import main_series, to_samples
from msa_suites.ruler.suite import measure_kept
from msa_suites.session import Session
from msa_suites.together import merged

#: Retrofit settings of the quality runs: k 4 with sink and local block forced leaves two free
#: slots, where a damaged selection shows (a generous k would hide it).
SETTINGS: dict[str, object] = {"topk": 4, "block": 32, "sink_blocks": 1, "local_blocks": 1}


def measure(session: Session) -> Iterator[list[Sample]]:
    """Samples of every side, one batch a task, so that an interrupted run keeps whole tasks.

    The sides run at the same time on one thread each: the model is too small to gain from more,
    and nothing here is timed. With items of the user's own, those are measured instead.
    """
    if session.items:
        yield from measure_kept(session)
        return
    quiet = replace(session, threads=1)
    yield from merged([partial(_measure_side, quiet, label) for label in session.sides])


def _measure_side(session: Session, label: str) -> Iterator[list[Sample]]:
    open_ = [
        name
        for name in (*TASKS, "fidelity")
        if session.picks(name) and not _is_done(session, name, label)
    ]
    if not open_:
        return
    with session.worker(label) as worker:
        if why := why_not(session.card(label)["operations"]):
            # A model needs the parts; an implementation without them is not wrong.
            items = dict(main_series(name) for name in open_)
            yield session.missing("quality", label, items=items, why=why, skip=True)
            return
        worker.load("evaluate", "msa_suites.quality.evaluate:evaluate")
        for name in open_:
            if name == "fidelity":
                session.say(f"{label}: fidelity to dense attention")
                worker.load("fidelity", "msa_suites.quality.fidelity:measure_fidelity")
                yield _fidelity(session, worker, label)
            else:
                session.say(f"{label}: {name}")
                yield _evaluate(session, worker, label, name)


def _is_done(session: Session, task: str, label: str) -> bool:
    prefix = f"quality/{task}/"
    return any(series.startswith(prefix) and side == label for _, series, side, _ in session.done)


def _settings(session: Session, label: str) -> dict[str, object]:
    return {**SETTINGS, **session.msa, "implementation": session.sides[label].implementation}


def _evaluate(session: Session, worker: Worker, label: str, task: str) -> list[Sample]:
    arguments = {
        "settings": _settings(session, label),
        "tasks": [task],
        "profile": session.profile,
        "device": session.device,
        "dtype": session.dtype,
        # Dense attention tells whether a task has a signal: by base, which no change can spoil.
        "attentions": ["dense", "msa"] if label == session.reference else ["msa"],
    }
    try:
        rows = worker.call("evaluate", "", [session.model], arguments)
    except CallFailedError as error:
        return [failure(session, label, task, error)]
    return to_samples(rows, subject=label, ran=session.ran(label), repro=session.repro("quality"))


def _fidelity(session: Session, worker: Worker, label: str) -> list[Sample]:
    arguments = {
        "settings": _settings(session, label),
        "profile": session.profile,
        "device": session.device,
        "dtype": session.dtype,
    }
    try:
        rows = worker.call("fidelity", "", [session.model], arguments)
    except CallFailedError as error:
        return [failure(session, label, "fidelity", error)]
    return to_samples(rows, subject=label, ran=session.ran(label), repro=session.repro("quality"))
