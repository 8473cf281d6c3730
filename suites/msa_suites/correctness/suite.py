"""The correctness suite of a run: head's implementation, in a worker, against the oracles.

Base is checked only where head fails, to say whether it failed before: what is wrong is wrong,
whoever broke it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from msa_harness.client import WorkerCrashedError, WorkerError, WorkerTimeoutError
from msa_harness.protocol import ref
from msa_harness.records import Sample
from msa_kernels.contract import Capabilities
from msa_suites.correctness.run import FAILED, CheckResult, iterate_checks, plan, to_samples
from msa_suites.correctness.subject import Arguments
from msa_suites.correctness.table import CHECKS
from msa_suites.session import SUBJECT, Session

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
        record = session.card(self._worker, label)
        self.capabilities = Capabilities.parse(record["capabilities"], record["operations"])

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
    session: Session, label: str, *, only: tuple[str, ...] = ()
) -> Iterator[CheckResult]:
    """The results of every planned check on one side.

    Raises:
        WorkerError: the worker does not start, or its implementation does not load.
    """
    table = plan(profile=session.profile, only=only, cases=session.cases)
    subject = RemoteSubject(session, label)
    # Judge and subject take turns: idle threads of one would spin beside those of the other.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from iterate_checks(
            subject,
            subject.capabilities,
            table=table,
            device=session.device,
            progress=lambda p: session.say(f"{label}: check {p.number}/{p.total} {p.check}"),
        )
    finally:
        torch.set_num_threads(threads)
        subject.close()


def measure(session: Session) -> Iterator[list[Sample]]:
    """Every check on head; the failed ones on base too, where there is one."""
    if any(suite == "correctness" and side == "head" for suite, _, side, _ in session.done):
        done = {(series.split("/")[1], item) for _, series, _, item in session.done}
    else:
        done = set()
    failed: set[str] = set()
    batch: list[CheckResult] = []
    for result in check_side(session, "head"):
        if result.status == FAILED:
            failed.add(result.check)
        if (result.check, result.case) not in done:
            batch.append(result)
        if len(batch) == _BATCH:
            yield _samples(session, "head", batch)
            batch = []
    yield _samples(session, "head", batch)
    if failed and "base" in session.sides:
        only = tuple(name for name in CHECKS if name in failed)
        try:
            results = list(check_side(session, "base", only=only))
        except WorkerError as error:
            session.say(f"base cannot be checked: {error}")
            return
        fresh = [r for r in results if _key(r) not in session.done]
        yield _samples(session, "base", fresh)


def _key(result: CheckResult) -> tuple[str, str, str, str]:
    return ("correctness", f"correctness/{result.check}", "base", result.case)


def _samples(session: Session, label: str, results: list[CheckResult]) -> list[Sample]:
    return to_samples(
        results, subject=label, ran=session.ran(label), repro=session.repro("correctness")
    )
