"""The method suite of a run: hard checks of the code around the operations.

An implementation from outside has only operations; msa itself is then the judge's own, and there
is nothing to check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from msa_harness.client import CallFailedError, Worker
from msa_harness.records import Sample
from msa_suites.method.checks import load_retrofit
from msa_suites.method.checks_index import CASE
from msa_suites.method.table import LAYER, NEEDS, RETROFIT
from msa_suites.models.attention import why_not
from msa_suites.session import Session

CHECKS = (*LAYER, *RETROFIT)


def measure(session: Session) -> Iterator[list[Sample]]:
    """Every check on head; on base too where one failed or was skipped: is that new?"""
    quiet = replace(session, threads=1)
    asked = session.failed_checks("method")
    for sample in _measure_side(quiet, "head", [name for name in CHECKS if session.picks(name)]):
        if not sample.value:
            asked.add(sample.series.rpartition("/")[2])
        yield [sample]
    if asked and "base" in session.sides:
        for sample in _measure_side(quiet, "base", sorted(asked)):
            yield [sample]


def _measure_side(session: Session, label: str, names: list[str]) -> Iterator[Sample]:
    todo = [name for name in names if _key(name, label) not in session.done]
    if not todo:
        return
    side = session.sides[label]
    why = why_not(session.card(label)["operations"])
    if not why and "msa" not in side.attested:
        why = "its msa is the judge's own"
    if why:
        items = {f"method/{name}": "check" for name in todo}
        yield from session.missing("method", label, items=items, why=why, skip=True)
        return
    with session.worker(label) as worker:
        for name in todo:
            if why := _lacks(session, worker, label, name):
                items = {f"method/{name}": "check"}
                yield from session.missing("method", label, items=items, why=why, skip=True)
                continue
            session.say(f"{label}: method check {name}")
            yield _run(session, worker, label, name)


def _key(name: str, label: str) -> tuple[str, str, str, str]:
    return ("method", f"method/{name}", label, name)


def _lacks(session: Session, worker: Worker, label: str, name: str) -> str:
    """Why a side cannot be asked: it is older than the check, or cannot train; or empty."""
    needs = NEEDS.get(name)
    if needs is None:
        return ""
    for operation in needs.operations:
        if why := session.why_not(label, operation, CASE):
            return why
    for module in needs.modules:
        try:
            worker.load("needed", module)
        except CallFailedError as error:
            # Of a module that is there, an import that fails is the check's to report.
            if error.message == f"No module named {module!r}":
                return f"its msa has no {module}"
    return ""


def _run(session: Session, worker: Worker, label: str, name: str) -> Sample:
    try:
        if name in RETROFIT:
            load_retrofit(worker)
        problem = (LAYER | RETROFIT)[name](worker)
    except CallFailedError as error:
        problem = f"{error.type}: {error.message}"
    return Sample(
        suite="method",
        series=f"method/{name}",
        subject=label,
        unit="check",
        item=name,
        value=0.0 if problem else 1.0,
        detail=problem,
        ran=session.ran(label),
        repro=session.repro("method"),
    )
