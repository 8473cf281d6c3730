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

#: What is measured beside lm-eval's tasks, and where.
OTHERS = {
    "fidelity": "msa_suites.quality.fidelity:measure_fidelity",
    "positions": "msa_suites.quality.positions:measure_positions",
}
_SAID = {"fidelity": "fidelity to dense attention", "positions": "text by position"}


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
        for name in (*TASKS, *OTHERS)
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
            session.say(f"{label}: {_SAID.get(name, name)}")
            if name in OTHERS:
                worker.load(name, OTHERS[name])
            yield _measure_task(session, worker, label, name)


def _is_done(session: Session, task: str, label: str) -> bool:
    prefix = f"quality/{task}/"
    return any(series.startswith(prefix) and side == label for _, series, side, _ in session.done)


def _settings(session: Session, label: str) -> dict[str, object]:
    # What nobody names is the default, or what the model's index branch was trained in.
    return {**session.msa, "implementation": session.sides[label].implementation}


def _measure_task(session: Session, worker: Worker, label: str, task: str) -> list[Sample]:
    arguments: dict[str, object] = {
        "settings": _settings(session, label),
        "profile": session.profile,
        "device": session.device,
        "dtype": session.dtype,
    }
    if task != "fidelity":
        # Dense attention tells whether a task has a signal: by base, which no change can spoil.
        both = label == session.reference
        arguments["attentions"] = ["dense", "msa"] if both else ["msa"]
    if task not in OTHERS:
        arguments["tasks"] = [task]
    handle = task if task in OTHERS else "evaluate"
    try:
        rows = worker.call(handle, "", [session.model], arguments)
    except CallFailedError as error:
        return [failure(session, label, task, error)]
    return to_samples(rows, subject=label, ran=session.ran(label), repro=session.repro("quality"))
