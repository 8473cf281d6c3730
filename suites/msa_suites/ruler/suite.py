"""Items of a folder in a run: each side's model in a worker, a few items a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msa_harness.client import CallFailedError, Worker
from msa_harness.records import Sample
from msa_suites.models.attention import why_not
from msa_suites.quality.failing import failure
from msa_suites.quality.samples import main_series, to_samples
from msa_suites.ruler.evaluate import OWN
from msa_suites.ruler.kept import load_kept, read_folder
from msa_suites.ruler.lm_tasks import values_of
from msa_suites.session import Session

#: Items of a call, which an interrupted run loses at most, and tokens: a call has a time limit.
AT_ONCE, TOKENS_AT_ONCE = 4, 1 << 17


def measure_kept(session: Session) -> Iterator[list[Sample]]:
    """Samples of every side, a few items a batch; one side after the other, for their room."""
    for label in session.sides:
        yield from _measure_side(session, label)


def _measure_side(session: Session, label: str) -> Iterator[list[Sample]]:
    open_ = {name: left for name in _tasks(session) if (left := _left(session, name, label))}
    if not open_:
        return
    with session.worker(label) as worker:
        # What a model has of its own needs no parts to be put into it.
        own = session.sides[label].implementation == OWN
        if not own and (why := why_not(session.card(label)["operations"])):
            items = dict(main_series(name) for name in open_)
            yield session.missing("quality", label, items=items, why=why, skip=True)
            return
        worker.load("evaluate", "msa_suites.ruler.evaluate:evaluate_kept")
        for name, left in open_.items():
            at_once = _at_once(session, name)
            for start in range(0, len(left), at_once):
                session.say(f"{label}: {name}, {start} of {len(left)} items")
                batch = _evaluate(session, worker, label, name, left[start : start + at_once])
                yield batch
                if batch and batch[-1].item == "all":  # it failed, and would fail again
                    break


def _tasks(session: Session) -> list[str]:
    return [name for name in read_folder(Path(session.items)).tasks if session.picks(name)]


def _at_once(session: Session, task: str) -> int:
    longest = max(read_folder(Path(session.items)).lengths(task))
    return max(1, min(AT_ONCE, TOKENS_AT_ONCE // longest))


def _left(session: Session, task: str, label: str) -> list[int]:
    """Places of the items that an earlier, interrupted run did not measure, or not wholly."""
    prefix = f"quality/{task}/"
    done = Counter(
        item.partition("/")[0]
        for _, series, side, item in session.done
        if series.startswith(prefix) and side == label
    )
    if "all" in done:
        return []
    items = load_kept(Path(session.items), task)
    attentions = len(_attentions(session, label))
    return [
        i for i, one in enumerate(items) if done[one["item"]] < attentions * values_of(task, one)
    ]


def _attentions(session: Session, label: str) -> list[str]:
    """Dense attention tells whether a task has a signal: by base, which no change can spoil."""
    return ["dense", "msa"] if label == session.reference else ["msa"]


def _evaluate(
    session: Session, worker: Worker, label: str, task: str, indices: list[int]
) -> list[Sample]:
    arguments: dict[str, Any] = {
        "items": session.items,
        "task": task,
        "indices": indices,
        "settings": {**session.msa, "implementation": session.sides[label].implementation},
        "device": session.device,
        "dtype": session.dtype,
        "attentions": _attentions(session, label),
    }
    try:
        rows = worker.call("evaluate", "", [session.model], arguments)
    except CallFailedError as error:
        return [failure(session, label, task, error)]
    made = to_samples(rows, subject=label, ran=session.ran(label), repro=session.repro("quality"))
    return [one for one in made if one.key not in session.done]
