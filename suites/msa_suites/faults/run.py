"""The fault matrix: every fault measured and judged as a change would be.

Base's half of each measurement is made once, with the right code, and must pass: a gate that cries
wolf would catch every fault. Only timed series run base and head side by side.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from typing import Any

from msa_harness.client import WorkerError
from msa_harness.gates import GateTable
from msa_harness.judge import judge
from msa_harness.records import RunHeader, RunStore, Sample
from msa_harness.verdicts import Outcome, Verdict
from msa_suites import TIMED, runner
from msa_suites.case import Case
from msa_suites.cases import CASES, case_named
from msa_suites.correctness.run import to_samples
from msa_suites.correctness.suite import check_side
from msa_suites.correctness.table import CHECKS
from msa_suites.faults import injected
from msa_suites.faults.code import MARKS
from msa_suites.faults.table import Fault
from msa_suites.session import Session

#: Verdicts that stop a change; INCONCLUSIVE does too, but has caught nothing.
CAUGHT = (Verdict.REGRESSION, Verdict.ERROR, Verdict.INVALID, Verdict.REMOVED)
#: Where the clock decides, INVALID says that the machine moved.
_CAUGHT_IN_TIME = (Verdict.REGRESSION, Verdict.ERROR)
#: Runs of a timed gate before a machine that is too noisy to say counts as a miss.
_TIMED_TRIES = 2
_SERIES_SHOWN = 6


class FaultsError(ValueError):
    """The matrix itself is broken: the right code does not pass a gate."""


@dataclass(frozen=True, slots=True)
class Caught:
    """What became of one fault.

    Attributes:
        fault: the fault.
        by: series that stopped it, of the first gate that did; empty where none did.
        gate: that gate.
        verdict: of the run.
        detail: what the first of these series says.
        applied: its code ran.
        seconds: of the gate that caught it, start-up included.
    """

    fault: Fault
    by: tuple[str, ...]
    gate: str
    verdict: str
    detail: str
    applied: bool
    seconds: float

    @property
    def named(self) -> bool:
        """Whether the report has the words that name this fault."""
        return bool(self.fault.cause) and self.fault.cause in self.detail

    def as_dict(self) -> dict[str, Any]:
        """A row of ``faults --json``."""
        return {
            "name": self.fault.name,
            "class": self.fault.kind,
            "summary": self.fault.summary,
            "seen": self.fault.seen,
            "needs": self.fault.needs,
            "expected_by": list(self.fault.gates),
            "caught_by": list(self.by),
            "gate": self.gate,
            "verdict": self.verdict,
            "detail": self.detail,
            "cause": self.fault.cause,
            "named": self.named,
            "caught": bool(self.by),
            "applied": self.applied,
            "seconds": round(self.seconds, 2),
        }


@dataclass
class Matrix:
    """Measures faults.

    Attributes:
        session: base and head, both the right code; its timeout bounds a call that hangs.
        gates: the gates that judge.
        marks: folder where faults that ran leave their names.
    """

    session: Session
    gates: GateTable
    marks: Path
    _right: dict[str, list[Sample]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def run(self, faults: Iterable[Fault], *, at_once: int) -> Iterator[Caught]:
        """Every fault, as they come; those of timed gates alone, after the others.

        Raises:
            FaultsError: the right code does not pass a gate.
        """
        table = list(faults)
        os.environ[MARKS] = str(self.marks)  # workers inherit it
        timed = [one for one in table if _suite(one.gates[0]) in TIMED]
        with ThreadPoolExecutor(at_once, "fault") as pool:
            yield from pool.map(self.catch, [one for one in table if one not in timed])
        for one in timed:
            yield self.catch(one)

    def catch(self, fault: Fault) -> Caught:
        """Try the gates of a fault until one catches it."""
        implementation = f"{injected.__name__}:{fault.name.replace('-', '_')}"
        for gate in fault.gates:
            started = time.monotonic()
            outcome = self.judged(gate, implementation)
            seconds = time.monotonic() - started
            wanted = _CAUGHT_IN_TIME if _suite(gate) in TIMED else CAUGHT
            stopped = [one for one in outcome.series if one.verdict in wanted]
            if stopped or outcome.verdict in wanted:
                by = tuple(one.name for one in stopped[:_SERIES_SHOWN]) or outcome.notes[:1]
                detail = stopped[0].note if stopped else "; ".join(outcome.notes)
                break
        else:
            by, gate, detail = (), "", "; ".join(outcome.notes)
        applied = (self.marks / fault.name).exists()
        return Caught(fault, by, gate, outcome.verdict.value, detail, applied, seconds)

    def judged(
        self, gate: str, implementation: str, *, cases: tuple[Case, ...] | None = None
    ) -> Outcome:
        """What one gate says of an implementation as head.

        Args:
            gate: ``suite`` or ``suite:what``.
            implementation: a faulty one, by name.
            cases: of the correctness suite, in this order; None for the gate's own.

        Raises:
            FaultsError: the right code does not pass.
        """
        suite = _suite(gate)
        head = replace(self.session.sides["head"], implementation=implementation)
        session = self._narrow(gate, {**self.session.sides, "head": head})
        if cases is not None:
            session = replace(session, cases=cases)
        if suite in TIMED:
            for _ in range(_TIMED_TRIES):
                outcome = self._timed(session, suite)
                if outcome.verdict not in (Verdict.INCONCLUSIVE, Verdict.INVALID):
                    break
            return outcome
        base = self._base(gate)
        if suite != "correctness":  # which reads what base offered, and measures head alone
            session = replace(session, sides={"head": head})
        samples = [*base, *_measured(session, suite)]
        return self._verdict(samples, suite)

    def _timed(self, session: Session, suite: str) -> Outcome:
        """As a gate does it: pairs, more pairs where the judge asks, a fresh set to confirm."""
        with tempfile.TemporaryDirectory(prefix="msa-fault-run-") as folder:
            header = RunHeader(
                command="faults",
                argv=(),
                environment={},
                subjects={},
                judge={},
                profile=session.profile,
                seed=session.seed,
                gates=self.gates.to_dict(),
            )
            with RunStore.create(Path(folder) / "run", header) as store:
                try:
                    runner.measure(session, [suite], store)
                    return runner.settle(session, store, self.gates, suites=[suite], mode="paired")
                except WorkerError as error:
                    return Outcome(Verdict.ERROR, (), (str(error),))

    def _base(self, gate: str) -> list[Sample]:
        """Samples of the right code as base, after it has passed as head."""
        with self._lock:
            if gate not in self._right:
                suite = _suite(gate)
                sides = {"head": self.session.sides["head"]}
                right = _measured(self._narrow(gate, sides), suite)
                base = [replace(one, subject="base") for one in right]
                outcome = self._verdict([*base, *right], suite)
                if outcome.verdict is not Verdict.PASS:
                    raise FaultsError(
                        f"gate {gate}: wanted PASS for the right code, got "
                        f"{outcome.verdict.value} {'; '.join(outcome.notes)}"
                    )
                self._right[gate] = base
            return self._right[gate]

    def _narrow(self, gate: str, sides: dict[str, Any]) -> Session:
        """The session of one gate: one case, task, check or series; a case before a check.

        Raises:
            FaultsError: of the correctness suite, neither.
        """
        suite, _, what = gate.partition(":")
        session = replace(self.session, sides=sides)
        if not what:
            return session
        if suite == "correctness" and what in {case.name for case in CASES}:
            return replace(session, cases=(case_named(what),))
        if suite == "correctness" and what not in CHECKS:
            near = get_close_matches(what, [*CHECKS, *(case.name for case in CASES)])
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise FaultsError(f"gate {gate}: wanted a case or a check of it, got {what!r}{hint}")
        return replace(session, only=frozenset({what}))

    def _verdict(self, samples: list[Sample], suite: str) -> Outcome:
        return judge(samples, self.gates, date.today(), mode="paired", suites=[suite], seed=0)


def _suite(gate: str) -> str:
    return gate.partition(":")[0]


def _measured(session: Session, suite: str) -> list[Sample]:
    """Samples of head; a subject that cannot be started or asked is an error of its suite."""
    found: list[Sample] = []
    try:
        with closing(_batches(session, suite)) as batches:
            for batch in batches:
                found += batch
                if any(one.value == 0.0 and one.unit == "check" for one in batch):
                    break
    except WorkerError as error:
        items = {f"{suite}/all": "check"}
        found += session.missing(suite, "head", items=items, why=str(error))
    return found


def _batches(session: Session, suite: str) -> Generator[list[Sample]]:
    """As the suite measures head, but every check by itself: the first failure is enough."""
    if suite != "correctness":
        yield from runner.suite_named(suite).measure(session)
        return
    for result in check_side(replace(session, threads=1), "head"):
        yield to_samples([result], subject="head", ran=session.ran("head"))
