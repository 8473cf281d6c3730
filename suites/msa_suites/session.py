"""What a suite is given to measure with: the sides, the profile, and worker processes for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msa_harness.attestation import attest, ran
from msa_harness.client import Worker, WorkerError
from msa_harness.gates import GateTable
from msa_harness.records import ERROR, Sample
from msa_harness.starting import starter
from msa_harness.subjects import Subject
from msa_kernels.contract import Capabilities
from msa_suites.capable import why_not
from msa_suites.case import Case
from msa_suites.versions import software_of

#: Begins the detail of a check that was skipped because an optional result did not come.
WITHHELD = "withheld: "
#: Handle of the implementation in every worker.
SUBJECT = "implementation"

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two things compared, and how its implementation is named.

    Attributes:
        subject: whose code, in which Python.
        implementation: a name of its table, or ``module:object``.
        attested: modules that must come from the subject's own roots.
    """

    subject: Subject
    implementation: str
    attested: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """A run as the suites see it.

    Attributes:
        sides: ``head``, and ``base`` where two are compared.
        profile: quick, standard or full.
        device: cpu or cuda.
        seed: of everything drawn at random.
        model: directory or hub id of the quality suite; empty means the embedded model.
        dtype: of the weights of the quality suite's model.
        items: folder of items that the quality suite measures instead of its own; or empty.
        msa: settings of MSA in the quality suite, over its defaults.
        threads: CPU threads of a worker.
        timeout: seconds that one request to a worker may take.
        memory: bytes that a worker may take; None: 45 % of what there is.
        cases: the user's own shapes; None means the suite's table.
        only: quality tasks, method checks and timed series that are measured; empty: all.
        judge_paths: the judge's folders that a worker imports from.
        done: what an interrupted run has measured already.
        failed: those of them that are failed checks.
        withheld: those of them in which head kept an optional result to itself.
        say: told what is going on, for the progress display.
        repro: command that repeats a series, by suite.
        repeat_check: command that repeats a check of the correctness suite on a case.
        gates: the table that judges, which says how many pairs to time.
        may_differ: versions that may differ between the sides of a timed suite.
        forked: workers share their imports; for those of this Python in which nothing is timed.
    """

    sides: Mapping[str, Side]
    profile: str = "quick"
    device: str = "cpu"
    seed: int = 0
    model: str = ""
    dtype: str = "float32"
    items: str = ""
    msa: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 2
    timeout: float = 600.0
    memory: float | None = None
    cases: tuple[Case, ...] | None = None
    only: frozenset[str] = frozenset()
    judge_paths: tuple[Path, ...] = ()
    done: frozenset[Key] = frozenset()
    failed: frozenset[Key] = frozenset()
    withheld: frozenset[Key] = frozenset()
    say: Callable[[str], None] = lambda _text: None
    repro: Callable[[str], str] = lambda _suite: ""
    repeat_check: Callable[[str, str], str] = lambda _check, _case: ""
    gates: GateTable | None = None
    may_differ: frozenset[str] = frozenset()
    forked: bool = False
    # By side and not by label: a session with another head shares what is known of base.
    _cards: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _software: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)

    def with_progress(self, say: Callable[[str], None], gates: GateTable) -> Session:
        """The same session with a progress display and the gates that will judge it."""
        return replace(self, say=say, gates=gates)

    @property
    def paired(self) -> bool:
        """Whether two sides are compared."""
        return len(self.sides) > 1

    @property
    def reference(self) -> str:
        """The side that is trusted: base, or head where it is alone."""
        return "base" if self.paired else "head"

    def picks(self, name: str) -> bool:
        """Whether a task, check or series is to be measured."""
        return not self.only or name in self.only

    def failed_checks(self, suite: str) -> set[str]:
        """Checks of head that failed before the run was interrupted."""
        return {
            series.rpartition("/")[2]
            for of, series, side, _ in self.failed
            if of == suite and side == "head"
        }

    def start(self, label: str) -> Worker:
        """A worker of a side, with its implementation loaded and attested.

        Raises:
            WorkerError: it does not start, has no such implementation, or imports it from
                somewhere else than the subject's own folders.
        """
        worker = self.bare(label)
        try:
            worker.load(SUBJECT, "msa_kernels:load", [self.sides[label].implementation])
            self._ask(label, worker)
        except BaseException:
            worker.close()
            raise
        return worker

    def bare(self, label: str) -> Worker:
        """A worker of a side, attested, in which nothing is loaded yet.

        Raises:
            WorkerError: it does not start, or imports from elsewhere than the subject's folders.
        """
        worker = Worker(
            self.sides[label].subject,
            threads=self.threads,
            judge_paths=self.judge_paths,
            device=self.device,
            timeout=self.timeout,
            memory=self.memory,
            forked=self.forked,
        )
        try:
            self._attest(label, worker)
        except BaseException:
            worker.close()
            raise
        return worker

    @contextmanager
    def worker(self, label: str) -> Iterator[Worker]:
        """:meth:`start` as a context manager."""
        worker = self.start(label)
        try:
            yield worker
        finally:
            worker.close()

    def card(self, label: str) -> dict[str, Any]:
        """Operations, capabilities and identity of a side's implementation, asked once a run.

        Raises:
            WorkerError: no worker of the side starts.
        """
        if self._key(label) not in self._cards:
            self.start(label).close()
        return self._cards[self._key(label)]

    def why_not(self, label: str, operation: str, case: Case) -> str | None:
        """Why a side cannot run a case, by what it declares; or None.

        Raises:
            WorkerError: no worker of the side starts.
        """
        card = self.card(label)
        declared = Capabilities.parse(card["capabilities"], card["operations"])
        return why_not(declared, operation, case, device=self.device)

    def software(self) -> dict[str, dict[str, str]]:
        """What each side's worker runs on: versions by name, missing ones left out.

        Raises:
            WorkerError: no worker of a side starts.
        """
        unknown = [one for one in self.sides if (one, self.threads) not in self._software]
        if unknown:
            with starter(self.start, unknown) as together:
                for worker in together(unknown).values():
                    worker.close()
        return {label: self._software[label, self.threads] for label in self.sides}

    def ran(self, label: str) -> str:
        """What really ran on a side, as records carry it; empty before its first worker."""
        if self._key(label) not in self._cards:
            return ""
        identity = self._cards[self._key(label)]["identity"]
        name = str(identity.get("name") or self.sides[label].implementation)
        return ran(name, {key: str(identity.get(key) or "") for key in ("version", "sha256")})

    def missing(
        self, suite: str, label: str, *, items: Mapping[str, str], why: str, skip: bool = False
    ) -> list[Sample]:
        """Samples that say why series could not be measured; ``items``: series -> unit.

        With ``skip`` there was nothing to measure; otherwise something went wrong.
        """
        return [
            Sample(
                suite=suite,
                series=series,
                subject=label,
                unit=unit,
                item="all",
                value=None,
                detail=why if skip else ERROR + why,
                ran=self.ran(label),
                repro=self.repro(suite),
            )
            for series, unit in items.items()
        ]

    def _key(self, label: str) -> tuple[str, str]:
        return label, self.sides[label].implementation

    def _attest(self, label: str, worker: Worker) -> None:
        side = self.sides[label]
        if side.attested:
            modules = worker.info(list(side.attested))["modules"]
            problems = attest(modules, side.subject.roots)
            if problems:
                raise WorkerError(
                    f"worker of {label}: what it imported is not the subject's: "
                    + "; ".join(problems)
                )

    def _ask(self, label: str, worker: Worker) -> None:
        side = self.sides[label]
        if self._key(label) not in self._cards:
            worker.load("card", "msa_kernels:card")
            self._cards[self._key(label)] = worker.call("card", "", [side.implementation])
        if (label, self.threads) not in self._software:
            self._software[label, self.threads] = software_of(worker)
