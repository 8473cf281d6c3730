"""From a plan to an outcome, as ``gate`` and ``check`` do it."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.markup import escape

from msa_harness.series import Mode
from msa_harness.verdicts import Outcome
from msa_reports.report import read_speedups
from msa_reports.terminal import print_outcome, print_speedups
from msa_suites import ON_REQUEST, SUITES, runner
from msa_suites.cases import load_cases
from msa_suites.commands import options, own_items
from msa_suites.fixtures import check_fixtures
from msa_suites.plan import Plan
from msa_suites.repeating import repeat_check
from msa_suites.session import Session

#: Options that a command which repeats a series must carry, where they are not the default.
_REPEATED = {
    **dict.fromkeys(("base", "head", "base_python", "head_python", "base_path", "head_path")),
    **dict.fromkeys(("model", "items", "msa", "cases", "gates")),
    **{"profile": "quick", "device": "cpu", "dtype": "float32", "seed": 0},
}


def run_plan(
    command: str,
    args: argparse.Namespace,
    plan: Plan,
    argv: list[str],
    *,
    extra: Mapping[str, object] | None = None,
) -> Outcome:
    """Measure, judge, report, print; ``extra`` stands beside the outcome in the JSON document.

    Raises:
        ValueError: unknown suites, suites that these subjects cannot run, or changed fixtures.
    """
    console = options.stderr_console()
    suites = options.pick("--suite", args.suite or _default_suites(plan), SUITES)
    check_fixtures(suites, items=args.items)
    session = make_session(command, args, plan)
    _require_timeable(suites, session)
    gates = runner.read_gates(plan, profile=args.profile, device=args.device)
    header = runner.make_header(command, argv, plan, gates, session)
    mode: Mode = "paired" if session.paired else "alone"
    console.print(f"msa-bench {command}: {escape(plan.title)}", highlight=False)
    console.print(f"run directory: {args.out}", markup=False, highlight=False)
    with (
        runner.open_store(args.out, header, resume=args.resume) as store,
        runner.progress(command, console) as say,
    ):
        session = session.with_progress(say, gates)
        seconds = runner.measure(session, suites, store)
        outcome = runner.settle(session, store, gates, suites=suites, mode=mode)
        runner.finish(store, outcome, _limits(session) if "speed" in suites else None)
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    console.print(f"measured: {times}", markup=False, highlight=False)
    if args.json:
        options.print_json({**outcome.to_json(header.environment), **(extra or {})})
    else:
        if plan.self_test:
            print("self-test: nothing compared (base and head are the same code)")
        print_outcome(outcome, stream=sys.stdout)
        print_speedups(read_speedups(args.out), stream=sys.stdout)
        print(f"report: {args.out / 'report.html'}")
    return outcome


def _require_timeable(suites: Sequence[str], session: Session) -> None:
    """Own cases of bytes are for the correctness suite: the others draw and check wide tensors.

    Raises:
        ValueError: the case and the suite.
    """
    for suite in ("speed", "work"):
        for case in session.cases or () if suite in suites else ():
            if case.has_bytes:
                raise ValueError(
                    f"--cases: wanted no float8_e4m3fn and no float4_e2m1fn_x2 for the suite "
                    f"{suite}, got it in {case.name!r}; --suite correctness takes it"
                )


def _default_suites(plan: Plan) -> list[str]:
    """All suites that need no naming; no method for one from outside, which brings no msa."""
    own = all("msa" in side.attested for side in plan.sides.values())
    names = [name for name in SUITES if name not in ON_REQUEST]
    return [name for name in names if own or name != "method"]


def _limits(session: Session) -> dict[str, object] | None:
    from msa_suites.speed.limits import speed_limits
    from msa_suites.speed.series import speed_series

    series = speed_series(session.profile, cases=session.cases)
    return speed_limits(series, device=session.device, threads=session.threads)


def _model(named: str | None) -> str:
    """The model as workers find it, which run in folders of their own."""
    return str(Path(named).resolve()) if named and Path(named).exists() else named or ""


def make_session(command: str, args: argparse.Namespace, plan: Plan) -> Session:
    """The session that the options describe."""
    common = [f"--implementation {shlex.quote(args.implementation)}"]
    for name, default in _REPEATED.items():
        value = getattr(args, name, default)
        if isinstance(value, Path) and value == options.gates_file(value.stem):
            value = value.stem  # shipped, and known by name
        if value not in (None, "", default):
            common.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    may_differ = getattr(args, "may_differ", None) or ()
    common += [f"--may-differ {name}" for name in may_differ]
    tail = " ".join(common)
    return Session(
        sides=plan.sides,
        profile=args.profile,
        device=args.device,
        seed=args.seed,
        model=_model(args.model),
        dtype=args.dtype,
        items=_model(args.items),
        msa=own_items.msa_settings(args.msa),
        threads=args.threads,
        timeout=args.timeout,
        memory=args.memory,
        may_differ=frozenset(may_differ),
        cases=tuple(load_cases(args.cases)) if args.cases else None,
        judge_paths=plan.judge_paths,
        repro=lambda suite: f"msa-bench {command} --suite {suite} {tail}",
        repeat_check=partial(repeat_check, args),
    )
