"""``msa-bench conformance``: the correctness suite on one implementation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msa_suites.commands import options

if TYPE_CHECKING:
    from msa_suites.cases import Case


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_implementation(parser)
    options.add_profile(parser)
    options.add_device(parser)
    options.add_only(parser, "--check", "only this check")
    options.add_only(parser, "--case", "only this case, of whatever profile")
    parser.add_argument("--cases", type=Path, metavar="FILE", help="own shapes as JSON lines")
    parser.add_argument("--python", metavar="PYTHON", help="interpreter that has it")
    parser.add_argument("--path", metavar="DIR", help="folder to import it from")
    options.add_threads(parser)
    options.add_timeout(parser, 120)
    options.add_memory(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_suites import runner
    from msa_suites.cases import load_cases
    from msa_suites.correctness.run import FAILED, conforms, to_document
    from msa_suites.correctness.suite import check_side
    from msa_suites.plan import plan_conformance
    from msa_suites.repeating import repeat_check
    from msa_suites.session import Session

    cases = tuple(load_cases(args.cases)) if args.cases else None
    cells = _cells(args, cases) if args.case else None
    plan = plan_conformance(args)
    with runner.progress("conformance", options.stderr_console()) as say:
        session = Session(
            sides=plan.sides,
            profile="full" if args.case else args.profile,
            device=args.device,
            threads=args.threads,
            timeout=args.timeout,
            memory=args.memory,
            cases=cases,
            judge_paths=plan.judge_paths,
            say=say,
        )
        results = []
        for result in check_side(session, "head", only=tuple(args.check or ()), cells=cells):
            results.append(result)
            if result.status == FAILED:  # hours may pass before the end
                say(f"FAILED {result.detail} [{result.case}]")
    document = to_document(
        results,
        implementation=args.implementation,
        repeat=partial(repeat_check, args),
        more={"ran": session.ran("head")},
    )
    if args.json:
        options.print_json(document)
    else:
        _print(document)
    if not document["passed"] and not document["failed"]:
        raise ValueError(
            f"--implementation: wanted one that runs a check, got {args.implementation}, for which "
            f"all {document['skipped']} were skipped: the cases are outside of what it declares"
        )
    return 0 if conforms(results) else 1


def _cells(args: argparse.Namespace, own: Sequence[Case] | None) -> set[tuple[str, str]]:
    """The checks of the cases that ``--case`` names, as ``check_side`` wants them.

    Raises:
        ValueError: no such case, or none of the checks is for it.
    """
    from msa_suites.correctness import run

    table = run.plan(profile="full", only=tuple(args.check or ()), cases=own)
    every = run.plan(profile="full", cases=own)
    options.pick("--case", args.case, [case.name for case, _ in every])
    cells = {(name, case.name) for case, names in table for name in names if case.name in args.case}
    if not cells:
        raise ValueError(
            f"--case: wanted one that --check {', '.join(args.check)} is for, "
            f"got {', '.join(args.case)}"
        )
    return cells


def _print(document: dict[str, object]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    failures, skips = document["failures"], document["skips"]
    assert isinstance(failures, list)
    assert isinstance(skips, list)
    for failure in failures:
        console.print(
            f"FAILED {failure['check']} [{failure['case']}]\n    {failure['detail']}\n"
            f"    repeat: {failure['repeat']}",
            markup=False,
        )
    reasons: dict[str, int] = {}
    for skip in skips:
        reasons[skip["detail"]] = reasons.get(skip["detail"], 0) + 1
    for reason, count in reasons.items():
        console.print(f"skipped {count}: {reason}", markup=False)
    console.print(f"{document['implementation']}: {document['ran']}", markup=False)
    console.print(
        f"{document['passed']} passed, {document['failed']} failed, {document['skipped']} skipped"
    )
