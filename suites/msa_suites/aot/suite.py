"""The suite of compiled kernels: resources of every launch, and what no kernel may be.

Only where it is asked for: it judges kernels, which ``triton`` and its like have. Nothing runs, so
it needs no GPU; ``--device`` does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msa_harness.attestation import ran
from msa_harness.client import CallFailedError, Worker, WorkerError
from msa_harness.records import Sample
from msa_suites.aot.builds import (
    ARCHITECTURES,
    DEFAULT_ARCHITECTURES,
    Build,
    architectures_of,
    builds_of,
)
from msa_suites.aot.rules import KERNELS, broken, matrix_unit
from msa_suites.case import E4M3
from msa_suites.session import Session
from msa_suites.together import merged

#: Series -> unit.
UNITS = {
    "registers": "registers",
    "spill_bytes": "bytes",
    "shared_bytes": "bytes",
    "tensor_memory": "columns",
    "matrix_unit": "share",
}


class CannotCompileError(WorkerError):
    """A side has no launches, or no Triton."""


@dataclass(frozen=True)
class Compiled:
    """One launch, compiled or not.

    Attributes:
        kernel: its name, with a number where it is launched more than once.
        arch: architecture.
        build: shape.
        problem: why it is not as it must be; empty where it is.
        found: what :meth:`Compiler.compile` says; empty where it did not compile.
        ran: which code and which Triton.
    """

    kernel: str
    arch: str
    build: Build
    problem: str
    found: dict[str, Any] = field(default_factory=dict)
    ran: str = ""

    @property
    def item(self) -> str:
        """Its name in the records."""
        return f"{self.kernel}/{self.build.name}"


def measure(session: Session) -> Iterator[list[Sample]]:
    """Every build of the profile on both sides."""
    sources = [
        partial(_measured, session, label, arch)
        for label, side in session.sides.items()
        for arch in architectures_of(side.implementation, DEFAULT_ARCHITECTURES)
    ]
    yield from merged(sources)


def _measured(session: Session, label: str, arch: str) -> Iterator[list[Sample]]:
    try:
        builds = builds_of(session.sides[label].implementation)[session.profile]
        for one in compiled(session, label, arch, builds):
            yield _samples(session, label, one)
    except CannotCompileError as error:
        if label == "head":
            raise
        session.say(f"{label}: {error}")  # of before there were launches: head is judged alone


def compiled(
    session: Session, label: str, arch: str, builds: tuple[Build, ...]
) -> Iterator[Compiled]:
    """Every launch of a side for an architecture that the session picks, as it is compiled.

    Raises:
        CannotCompileError: its implementation has no launches, or there is no Triton.
        WorkerError: no worker of the side starts.
    """
    with ExitStack() as stack:
        workers: list[Worker] = []

        def worker() -> Worker:
            """The one at work; another where the compiler took the last one with it."""
            if not workers:
                one = stack.enter_context(session.bare(label))
                spec = session.sides[label].implementation
                where = "msa_suites.aot.compiling:Compiler"
                try:
                    one.load("compiler", where, [spec, ARCHITECTURES[arch]])
                except CallFailedError as error:
                    raise CannotCompileError(
                        f"{spec} cannot be compiled: {error.message}"
                    ) from error
                workers.append(one)
            return workers[0]

        who = worker().call("compiler", "identity")
        identity = {name: str(who.get(name) or "") for name in ("version", "sha256")}
        text = f"{ran(str(who.get('name')), identity)} triton {who['triton']}"
        for build in builds:
            names = worker().call("compiler", "names", [build.as_dict()])
            for one in _absent(session.sides[label].implementation, names, arch, build, text):
                if session.picks(one.kernel) and _key(label, arch, one.item) not in session.done:
                    yield one
            for kernel, number in names.items():
                if not session.picks(kernel.partition(".")[0]):
                    continue
                item = f"{kernel}/{build.name}"
                if _key(label, arch, item) in session.done:
                    continue
                session.say(f"{label}: {arch} {item}")
                found, problem = {}, ""
                try:
                    found = worker().call("compiler", "compile", [build.as_dict(), number])
                    problem = broken(kernel, found, arch, build)
                except CallFailedError as error:
                    problem = f"does not compile: {error.type}: {error.message}"
                except WorkerError as error:  # the compiler took the process with it
                    problem = f"does not compile: {error}"
                    workers.clear()
                yield Compiled(kernel, arch, build, problem, found, text)


def _key(label: str, arch: str, item: str) -> tuple[str, str, str, str]:
    return "aot", f"aot/compiles/{arch}", label, item


def _absent(
    implementation: str, names: dict[str, int], arch: str, build: Build, text: str
) -> Iterator[Compiled]:
    """Kernels of ours that no launcher launches any more: a rule for them would hold for ever."""
    rules = KERNELS.get(implementation, {})
    wanted = {name for name, rule in rules.items() if not (rule.wide and build.dtype == E4M3)}
    for kernel in sorted(wanted - {name.partition(".")[0] for name in names}):
        problem = f"wanted a launch of it, got launches of {', '.join(names)}"
        yield Compiled(kernel, arch, build, problem, ran=text)


def _samples(session: Session, label: str, one: Compiled) -> list[Sample]:
    values = {"compiles": 0.0 if one.problem else 1.0}
    if one.found:
        unit = matrix_unit(one.found["instructions"], one.arch)
        values |= {name: float(one.found[name]) for name in UNITS if name in one.found}
        values["matrix_unit"] = unit
    return [
        Sample(
            suite="aot",
            series=f"aot/{name}/{one.arch}",
            subject=label,
            unit=UNITS.get(name, "check"),
            item=one.item,
            value=value,
            detail=one.problem if name == "compiles" else "",
            ran=one.ran,
            repro=f"msa-bench aot --arch {one.arch} --implementation "
            f"{session.sides[label].implementation}",
        )
        for name, value in values.items()
    ]
