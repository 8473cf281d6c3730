"""Running the table of checks over the table of cases, and the results as records and JSON."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msa_harness.records import Sample
from msa_kernels.contract import Capabilities
from msa_suites.cases import CASES, Case, cases_for
from msa_suites.correctness.material import Material
from msa_suites.correctness.subject import Call, Failed, Skipped, Subject
from msa_suites.correctness.table import CHECKS, Check
from msa_suites.correctness.trial import Trial

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of one check on one case.

    Attributes:
        check: name in ``CHECKS``.
        case: name of the case.
        status: ``passed``, ``failed`` or ``skipped``.
        detail: why it failed or was skipped.
        seconds: wall time, the judge's part included.
    """

    check: str
    case: str
    status: str
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What is about to run: check ``number`` of ``total``."""

    number: int
    total: int
    check: str
    case: str


class Materials:
    """Oracle results by case. Keeps the last case only, or all where many subjects are judged."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._known: dict[tuple[str, bool], Material] = {}

    def of(self, case: Case, *, exact: bool) -> Material:
        key = (case.name, exact)
        if key not in self._known or self._known[key].case != case:
            if not self._keep:
                self._known.clear()
            self._known[key] = Material.of(case, exact=exact)
        return self._known[key]


def plan(
    *,
    profile: str = "quick",
    only: Sequence[str] = (),
    cases: Iterable[Case] | None = None,
) -> tuple[tuple[Case, tuple[str, ...]], ...]:
    """Which checks run on which cases, case by case.

    Args:
        profile: ``quick``, ``standard`` or ``full``; of our own table.
        only: names of checks; all if empty.
        cases: other cases than the table's: every check runs on each of them.

    Raises:
        ValueError: an unknown check or profile, or no context above the budget ``topk * block``:
            such a run would test no selection.
    """
    for name in only:
        if name not in CHECKS:
            near = difflib.get_close_matches(name, CHECKS, n=3) or list(CHECKS)
            raise ValueError(f"check: wanted one of {', '.join(near)}, got {name!r}")
    wanted = [name for name in CHECKS if not only or name in only]
    chosen = cases_for("correctness", profile=profile) if cases is None else tuple(cases)
    if not any(case.exceeds_budget for case in chosen):
        raise ValueError(
            "cases: wanted at least one context above its budget topk * block, got none: at or "
            "below it MSA is dense attention"
        )
    own = cases is not None and not all(case in CASES for case in chosen)
    table = [
        (case, tuple(name for name in wanted if own or CHECKS[name].cases in case.tags))
        for case in chosen
    ]
    return tuple((case, names) for case, names in table if names)


def run_checks(
    subject_call: Call,
    capabilities: Capabilities,
    *,
    profile: str = "quick",
    only: Sequence[str] = (),
    cases: Iterable[Case] | None = None,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
    materials: Materials | None = None,
) -> list[CheckResult]:
    """Run every planned check on a subject.

    Args:
        subject_call: runs one operation of it, in whatever process.
        capabilities: its operations and limits; what is outside is skipped with the reason.
        profile: as in :func:`plan`.
        only: as in :func:`plan`.
        cases: as in :func:`plan`.
        device: where its tensors go.
        progress: told before each check.
        materials: oracle results to share between runs.

    Raises:
        ValueError: as in :func:`plan`.
    """
    return list(
        iterate_checks(
            subject_call,
            capabilities,
            table=plan(profile=profile, only=only, cases=cases),
            device=device,
            progress=progress,
            materials=materials,
        )
    )


def iterate_checks(
    subject_call: Call,
    capabilities: Capabilities,
    *,
    table: Sequence[tuple[Case, tuple[str, ...]]],
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
    materials: Materials | None = None,
) -> Iterator[CheckResult]:
    """The results of a :func:`plan` one by one; arguments as in :func:`run_checks`."""
    subject = Subject(subject_call, capabilities, device)
    store = materials or Materials()
    total, number = sum(len(names) for _, names in table), 0
    for case, names in table:
        trial = Trial(case, store.of(case, exact=capabilities.exact_scores), subject)
        failed = False
        for name in names:
            number += 1
            if progress is not None:
                progress(Progress(number, total, name, case.name))
            result = _run(name, CHECKS[name], trial, first=not failed)
            failed = failed or result.status == FAILED
            yield result


def _run(name: str, check: Check, trial: Trial, *, first: bool) -> CheckResult:
    """One check; where it is the first to fail on its case, what that alone tells is added."""
    start = time.perf_counter()
    status, detail = PASSED, ""
    try:
        if check.needs:
            trial.subject.require(check.needs, trial.case)
        check.function(trial)
    except Skipped as outcome:
        status, detail = SKIPPED, str(outcome)
    except Failed as outcome:
        text = str(outcome)
        means = check.means if first and outcome.judged else ""
        if cause := outcome.cause or means or outcome.look:
            text += f"; likely cause: {cause}"
        status, detail = FAILED, text if text.startswith(f"{name}:") else f"{name}: {text}"
    return CheckResult(name, trial.case.name, status, detail, time.perf_counter() - start)


def to_samples(
    results: Iterable[CheckResult],
    *,
    subject: str,
    ran: str = "",
    repro: Callable[[CheckResult], str] = lambda _result: "",
) -> list[Sample]:
    """Records of the results: series ``correctness/<check>``, item the case's name.

    Args:
        results: of one subject.
        subject: ``base`` or ``head``.
        ran: identity of what ran.
        repro: command that repeats a result.
    """
    value = {PASSED: 1.0, FAILED: 0.0, SKIPPED: None}
    return [
        Sample(
            suite="correctness",
            series=f"correctness/{r.check}",
            subject=subject,
            unit="check",
            item=r.case,
            value=value[r.status],
            detail=r.detail,
            ran=ran,
            repro=repro(r),
        )
        for r in results
    ]


def to_document(
    results: Sequence[CheckResult],
    *,
    implementation: str,
    repeat: Callable[[str, str], str],
    more: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The document of ``conformance --json``; ``repeat``: the command for a check and a case."""
    count = {
        status: sum(r.status == status for r in results) for status in (PASSED, FAILED, SKIPPED)
    }
    return {
        "implementation": implementation,
        **count,
        "failures": [
            {
                "check": r.check,
                "case": r.case,
                "detail": r.detail,
                "repeat": repeat(r.check, r.case),
            }
            for r in results
            if r.status == FAILED
        ],
        "skips": [
            {"check": r.check, "case": r.case, "detail": r.detail}
            for r in results
            if r.status == SKIPPED
        ],
        **(more or {}),
    }


def conforms(results: Sequence[CheckResult]) -> bool:
    """Whether nothing failed and something passed: a run that checked nothing is no pass."""
    return not any(r.status == FAILED for r in results) and any(r.status == PASSED for r in results)
