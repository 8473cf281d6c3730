"""The correctness suite of a run: head's implementation, in a worker, against the oracles.

Base is checked only where head fails, to say whether it failed before: what is wrong is wrong,
whoever broke it. And where head returns no optional result: if base returned it, it is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from msa_harness.client import WorkerCrashedError, WorkerError, WorkerTimeoutError
from msa_harness.protocol import ref
from msa_harness.records import Sample
from msa_kernels.contract import Capabilities
from msa_suites.case import Case
from msa_suites.correctness.run import (
    FAILED,
    CheckResult,
    iterate_checks,
    plan,
    to_samples,
)
from msa_suites.correctness.subject import Arguments
from msa_suites.correctness.table import CHECKS
from msa_suites.session import SUBJECT, WITHHELD, Session

#: Threads of the cases that are long enough to use them.
_THREADS = 2
#: Results that are written at once.
_BATCH = 32


class RemoteSubject:
    """Calls of the checks, in a worker that is started again after a crash or a hang.

    Args:
        session: the run.
        label: which side.
    """

    def __init__(self, session: Session, label: str) -> None:
        self._session, self._label = session, label
        self._worker = session.start(label)

    def __call__(self, operation: str, /, *tensors: Tensor, **keywords: object) -> object:
        try:
            return self._worker.call(SUBJECT, operation, tensors, keywords)
        except (WorkerCrashedError, WorkerTimeoutError):
            # The process is gone; the check fails with what happened, the next one gets another.
            self._worker = self._session.start(self._label)
            raise

    def retained(self, operation: str, first: Arguments, second: Arguments) -> object:
        """A first result as it stands, in the worker, after a second call."""
        try:
            self._worker.call(SUBJECT, operation, *first, keep="retained")
            self._worker.call(SUBJECT, operation, *second)
            self._worker.load("copy", "copy:copy")
            return self._worker.call("copy", "", [ref("retained")])
        except (WorkerCrashedError, WorkerTimeoutError):
            self._worker = self._session.start(self._label)
            raise

    def close(self) -> None:
        self._worker.close()


def check_side(
    session: Session,
    label: str,
    *,
    only: tuple[str, ...] = (),
    cells: Collection[tuple[str, str]] | None = None,
) -> Iterator[CheckResult]:
    """The results of every planned check on one side.

    Args:
        session: the run.
        label: which side.
        only: names of checks; if empty, those that the session picks, or all.
        cells: checks and the cases that they are for; None for all.

    Raises:
        WorkerError: the worker does not start, or its implementation does not load.
    """
    # The session may name what is another suite's, which picks nothing here.
    only = only or tuple(name for name in CHECKS if name in session.only)
    table = tuple(
        (case, left)
        for case, names in plan(profile=session.profile, only=only, cases=session.cases)
        if (
            left := tuple(
                name
                for name in names
                if (cells is None or (name, case.name) in cells)
                and not _is_done(session, label, name, case.name)
            )
        )
    )
    several = max(session.threads, _THREADS)
    for threads, tagged in ((session.threads, False), (several, True)):
        part = tuple(one for one in table if ("threads" in one[0].tags) is tagged)
        if part:
            yield from _check_table(replace(session, threads=threads), label, part)


def _check_table(
    session: Session, label: str, table: Sequence[tuple[Case, tuple[str, ...]]]
) -> Iterator[CheckResult]:
    """The results of a table of checks in one worker."""
    subject = RemoteSubject(session, label)
    # Judge and subject take turns: idle threads of one would spin beside those of the other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from iterate_checks(
            subject,
            _promised(session, label),
            table=table,
            device=session.device,
            progress=lambda p: session.say(f"{label}: check {p.number}/{p.total} {p.check}"),
        )
    finally:
        torch.set_num_threads(threads)
        subject.close()


def measure(session: Session) -> Iterator[list[Sample]]:
    """Every check on head that is not done; the failed ones on base too, where there is one.

    One thread but for the cases with the tag "threads": the others are small, and threads that wait
    for each other cost more than they give.
    """
    quiet = replace(session, threads=1)
    failed = session.failed_checks("correctness")
    asked = {
        (series.rpartition("/")[2], item)
        for of, series, side, item in session.withheld
        if (of, side) == ("correctness", "head")
    }
    for results in _batches(check_side(quiet, "head")):
        failed.update(result.check for result in results if result.status == FAILED)
        asked.update((r.check, r.case) for r in results if r.detail.startswith(WITHHELD))
        yield _samples(quiet, "head", results)
    if not (failed or asked) or "base" not in session.sides:
        return
    table = plan(profile=session.profile, cases=session.cases)
    asked |= {(name, case.name) for case, names in table for name in names if name in failed}
    try:
        yield _samples(quiet, "base", list(check_side(quiet, "base", cells=asked)))
    except WorkerError as error:
        session.say(f"base cannot be checked: {error}")


def _promised(session: Session, label: str) -> Capabilities:
    """What a side is held to: what it offers, and for head also what base did.

    An operation that is gone, or a dtype that `CAPABILITIES` no longer names, would else be a
    green run of fewer checks.
    """

    def offered(of: str) -> Capabilities:
        card = session.card(of)
        return Capabilities.parse(card["capabilities"], card["operations"])

    if label == "head" and "base" in session.sides:
        return offered("head").with_promises_of(offered("base"))
    return offered(label)


def _batches(results: Iterable[CheckResult]) -> Iterator[list[CheckResult]]:
    """Lists of at most ``_BATCH``."""
    left = iter(results)
    while batch := list(islice(left, _BATCH)):
        yield batch


def _is_done(session: Session, label: str, check: str, case: str) -> bool:
    return ("correctness", f"correctness/{check}", label, case) in session.done


def _samples(session: Session, label: str, results: list[CheckResult]) -> list[Sample]:
    def repro(result: CheckResult) -> str:
        if result.status == FAILED:
            return session.repeat_check(result.check, result.case)
        return session.repro("correctness")

    return to_samples(results, subject=label, ran=session.ran(label), repro=repro)
