"""One run: suites measure into a store, the judge decides, the report is written."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from msa_harness.client import WorkerError
from msa_harness.environment import capture
from msa_harness.gates import GateTable, judging_day, parse_gates
from msa_harness.judge import judge
from msa_harness.records import RunHeader, RunStore, Sample, write_atomic
from msa_harness.series import Mode
from msa_harness.settling import settled
from msa_harness.verdicts import Outcome
from msa_reports.cost import FILE as LIMITS
from msa_reports.report import VERDICT, write_report
from msa_suites import READS_MODEL, SUITES, TIMED
from msa_suites.plan import Plan
from msa_suites.ruler.kept import MANIFEST
from msa_suites.session import WITHHELD, Session
from msa_suites.shared import shared_imports
from msa_suites.software import check_resumed, software_samples, voids
from msa_suites.speed.weighted import asked_of, weighted_samples
from msa_suites.together import merged


class Suite(Protocol):
    """A module of the table of suites."""

    def measure(self, session: Session) -> Iterator[list[Sample]]:
        """Batches of samples that are not in ``session.done``."""


class SettlingSuite(Suite, Protocol):
    """A suite whose series may need more samples before their verdict is final."""

    def measure_more(self, session: Session, wanted: Mapping[str, str]) -> Iterator[list[Sample]]:
        """Further samples; ``wanted`` maps a series to ``more`` or ``confirm``."""


def suite_named(name: str) -> Suite:
    """The module of a suite, imported when it is needed."""
    return cast(Suite, importlib.import_module(SUITES[name]))


def default_directory(command: str) -> Path:
    """``runs/<time>-<command>`` below the current directory."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{command}"


def open_store(directory: Path, header: RunHeader, *, resume: bool) -> RunStore:
    """A new run, or the one in ``directory`` to go on with."""
    if resume and (directory / "run.json").exists():
        return RunStore.open(directory, resume=True, expect=header)
    return RunStore.create(directory, header)


def make_header(
    command: str, argv: Sequence[str], plan: Plan, gates: GateTable, session: Session
) -> RunHeader:
    """What ``run.json`` says of a run."""
    described = {
        label: {**side.subject.to_dict(), "implementation": side.implementation}
        for label, side in plan.sides.items()
    }
    head = plan.sides["head"].subject
    environment = capture(
        threads=session.threads, device=session.device, commit=head.revision, dirty=head.dirty
    )
    return RunHeader(
        command=command,
        argv=tuple(argv),
        environment=environment.to_dict(),
        subjects=described,
        judge={
            **plan.judge,
            "self_test": plan.self_test,
            "model": session.model or "embedded",
            **_own_items(session),
            **({"may_differ": sorted(session.may_differ)} if session.may_differ else {}),
        },
        profile=session.profile,
        seed=session.seed,
        gates=gates.to_dict(),
    )


def _own_items(session: Session) -> dict[str, object]:
    """What is measured where that is the user's own: shapes, items."""
    found: dict[str, object] = {}
    if session.cases:
        found["cases"] = hashlib.sha256(repr(session.cases).encode()).hexdigest()
    if session.items:
        manifest = (Path(session.items) / MANIFEST).read_bytes()
        found["items"] = hashlib.sha256(manifest).hexdigest()
    if session.msa:
        found["msa"] = dict(session.msa)
    if session.dtype != "float32":
        found["dtype"] = session.dtype
    return found


def read_gates(plan: Plan, *, profile: str, device: str) -> GateTable:
    """The plan's gate table for a profile and the class of this machine."""
    environment = capture(threads=1, device=device)
    return parse_gates(plan.gates, profile=profile, device=environment.device_class)


@contextmanager
def progress(title: str, console: Console) -> Iterator[Callable[[str], None]]:
    """A line that says what is going on; plain lines where stderr is no terminal."""
    if not console.is_terminal:
        started = time.monotonic()

        def plain(text: str) -> None:
            console.print(
                f"[{time.monotonic() - started:6.1f}s] {text}", markup=False, soft_wrap=True
            )

        yield plain
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda text: bar.update(task, description=text)


def measure(session: Session, suites: Iterable[str], store: RunStore) -> dict[str, float]:
    """Run the suites, those that nothing is timed in at the same time; returns seconds by suite."""
    names = list(suites)
    before = list(store.samples())
    now = dataclasses.replace(
        session,
        done=frozenset(store.done_keys()),
        failed=frozenset(one.key for one in before if one.value == 0.0),
        withheld=frozenset(one.key for one in before if one.detail.startswith(WITHHELD)),
    )
    modules = {name: suite_named(name) for name in names}  # imported in this thread
    seconds = {}

    def run(name: str, given: Session = now) -> Iterator[list[Sample]]:
        started = time.monotonic()
        yield from modules[name].measure(given)
        seconds[name] = time.monotonic() - started

    def unsaid(batch: Iterable[Sample]) -> list[Sample]:
        """Why nothing was measured is said again by a resumed run, and kept once."""
        return [one for one in batch if one.value is not None or one.key not in now.done]

    if len(names) > 1 and not before:
        with suppress(WorkerError):  # its suites say what a side lacks that does not start
            now.software()  # and what it offers, asked once for all suites
    untimed = [name for name in names if name not in TIMED]
    with shared_imports(now, untimed) as light:
        given = {name: light if name in READS_MODEL else now for name in untimed}
        for batch in merged([partial(run, name, given[name]) for name in untimed]):
            store.append(unsaid(batch))
    timed = [name for name in names if name in TIMED]
    if timed and session.paired:
        software = software_samples(now)
        check_resumed(software, store.samples())
        store.append(one for one in software if one.key not in now.done)
        timed = [] if voids(software, now) else timed
    for name in timed:
        for batch in run(name):
            store.append(batch)
    return seconds


def settle(
    session: Session, store: RunStore, gates: GateTable, *, suites: Sequence[str], mode: Mode
) -> Outcome:
    """Judge, and measure more where the judge asks for it, until nothing is left to ask."""
    today = judging_day(store.header.created)  # once: a run over midnight keeps its waivers

    timed = mode == "paired" and any(name in TIMED for name in suites)

    def mean() -> list[Sample]:
        """The weighted mean of own shapes, in the pairs that do not have it yet."""
        own = timed and session.cases
        return weighted_samples(store.samples(), session.cases) if own else []

    def judge_now() -> Outcome:
        samples = [*store.samples(), *mean()]
        return judge(samples, gates, today, mode=mode, suites=suites, seed=session.seed)

    def add(wanted: Mapping[str, str]) -> bool:
        before = len(store.done_keys())
        now = dataclasses.replace(session, done=frozenset(store.done_keys()))
        speed = cast(SettlingSuite, suite_named("speed"))
        for batch in speed.measure_more(now, asked_of(wanted, session.cases)):
            store.append(batch)
        return len(store.done_keys()) > before

    outcome = settled(judge_now, add) if mode == "paired" else judge_now()
    store.append(mean())
    return outcome


def finish(store: RunStore, outcome: Outcome, limits: Mapping[str, object] | None) -> None:
    """Write the verdict, what arithmetic allows, and the report beside the samples."""
    if limits is not None:
        write_atomic(store.directory / LIMITS, json.dumps(limits, indent=1) + "\n")
    document = outcome.to_json(store.header.environment)
    write_atomic(store.directory / VERDICT, json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_report(store.directory)
