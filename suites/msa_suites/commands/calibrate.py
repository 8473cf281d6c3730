"""``msa-bench calibrate``: what the gate's verdicts are worth on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa_suites.commands import options

if TYPE_CHECKING:
    from msa_harness.calibration import Pair, Tally
    from msa_harness.gates import GateTable
    from msa_harness.records import RunStore, Sample

FILE = "calibration.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gates",
        dest="real",
        type=int,
        default=3,
        metavar="N",
        help="self-tests to run, base and head the same code (three minutes each)",
    )
    options.add_only(
        parser, "--suite", "suites of these self-tests (default: speed); quality adds recall"
    )
    parser.add_argument(
        "--runs", type=Path, nargs="+", default=[], metavar="RUN", help="recorded self-tests to add"
    )
    parser.add_argument(
        "--simulations",
        type=options.positive,
        default=299,
        metavar="N",
        help="simulated gates of identical code; 299 without an alarm bound the rate below 1 %%",
    )
    parser.add_argument(
        "--power",
        type=options.positive,
        default=100,
        metavar="N",
        help="simulated gates for each slowed series and slowdown",
    )
    for flag, what in (("--slowdowns", "one series of head"), ("--losses", "the recalled facts")):
        parser.add_argument(
            flag,
            type=float,
            nargs="+",
            default=[0.02, 0.05, 0.10],
            metavar="X",
            help=f"of {what}, as fractions",
        )
    options.add_threads(parser)
    options.add_out(parser, "directory (default: runs/<time>-calibrate)")
    options.add_resume(parser)
    options.add_seed(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_harness.calibration import pairs_of
    from msa_harness.records import RunStore, write_atomic
    from msa_suites import runner

    if args.real < 0 or args.real + len(args.runs) < 1:
        raise ValueError("--gates, --runs: wanted at least one self-test or recorded run, got none")
    if any(not 0 < share < 1 for share in (*args.slowdowns, *args.losses)):
        raise ValueError("--slowdowns, --losses: wanted fractions between 0 and 1")
    options.settle_out(args, "calibrate")
    with runner.progress("calibrate", options.stderr_console()) as say:
        folders = [*_self_tests(args, say), *args.runs]
        stores = [RunStore.open(folder) for folder in folders]
        gates, environment = _same_machine(stores)
        samples = [list(store.samples()) for store in stores]
        pairs = [pair for one in samples for pair in pairs_of(one)]
        document: dict[str, Any] = {
            "pairs": len(pairs),
            "real": _real(folders),
            "simulated": _speed(args, pairs, gates, say),
            "recall": _recall(args, samples, gates, say),
            "gates": gates.to_dict(),
            "environment": environment,
        }
    args.out.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out / FILE, json.dumps(document, indent=1) + "\n")
    if args.json:
        options.print_json(document)
    else:
        _print(document)
        print(f"calibration: {args.out / FILE}")
    return 0


def _self_tests(args: argparse.Namespace, say: Callable[[str], None]) -> list[Path]:
    """Run directories of real gates on identical code; those that are finished are kept."""
    from msa_reports.report import VERDICT
    from msa_suites import SUITES, runner
    from msa_suites.self_test import self_test, self_test_plan

    suites = options.pick("--suite", args.suite or ["speed"], SUITES)
    plan = self_test_plan()
    folders = []
    for number in range(args.real):
        folder = args.out / f"gate-{number:02d}"
        folders.append(folder)
        if (folder / VERDICT).exists():
            continue
        session, gates = self_test(timeout=600, threads=args.threads, seed=args.seed)
        session = session.with_progress(_prefixed(say, f"gate {number + 1}/{args.real}"), gates)
        header = runner.make_header("calibrate", ["--gates", "1"], plan, gates, session)
        with runner.open_store(folder, header, resume=args.resume) as store:
            runner.measure(session, suites, store)
            outcome = runner.settle(session, store, gates, suites=suites, mode="paired")
            runner.finish(store, outcome, None)
    return folders


def _prefixed(say: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    return lambda text: say(f"{prefix}: {text}")


def _same_machine(stores: list[RunStore]) -> tuple[GateTable, dict[str, Any]]:
    """Gates and environment of runs that may be pooled.

    Raises:
        ValueError: runs of different machines, profiles or gates, or of two different codes.
    """
    from msa_harness.environment import incomparable
    from msa_harness.gates import table_from_dict

    first = stores[0].header
    for store in stores:
        header = store.header
        if not header.judge.get("self_test"):
            raise ValueError(
                f"--runs: wanted self-tests, got {store.directory}, which compares two codes"
            )
        differs = incomparable(first.environment, header.environment)
        differs += [name for name in ("profile", "gates") if name in first.differs(header)]
        if differs:
            raise ValueError(
                f"--runs: wanted runs of one machine, profile and gates, got {store.directory}, "
                f"which differs in {'; '.join(differs)}"
            )
    return table_from_dict(first.gates), dict(first.environment)


def _real(folders: list[Path]) -> dict[str, int]:
    from collections import Counter

    from msa_reports.report import VERDICT

    verdicts = [json.loads((folder / VERDICT).read_text())["verdict"] for folder in folders]
    return dict(Counter(verdicts))


def _speed(
    args: argparse.Namespace, pairs: list[Pair], gates: GateTable, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    from msa_harness.calibration import simulate, timed_series

    if not pairs:
        return []
    say(f"{args.simulations} simulated gates of identical code")
    tallies = [simulate(pairs, gates, count=args.simulations, seed=args.seed)]
    for slowdown in args.slowdowns:
        for name in timed_series(pairs, gates):
            say(f"{args.power} simulated gates, {name} slower by {slowdown:.0%}")
            tallies.append(
                simulate(
                    pairs, gates, count=args.power, slowdown=slowdown, series=name, seed=args.seed
                )
            )
    return [{**tally.to_json(), "regression": _shares(tally)} for tally in tallies]


def _shares(tally: Tally) -> list[float]:
    return [round(x, 4) for x in tally.share("REGRESSION", own=bool(tally.series))]


def _recall(
    args: argparse.Namespace,
    samples: list[list[Sample]],
    gates: GateTable,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    from msa_harness.calibration import simulate_recall

    rows = []
    for run_samples in samples:
        names = {
            one.series for one in run_samples if one.suite == "quality" and one.unit == "recall"
        }
        for name in sorted(name for name in names if not name.endswith("/dense")):
            say(f"{args.power} simulated gates, {name} with losses")
            for loss in args.losses:
                tally = simulate_recall(
                    run_samples, gates, series=name, loss=loss, count=args.power, seed=args.seed
                )
                rows.append({**tally.to_json(), "regression": _shares(tally)})
        if rows:
            break  # quality has no noise: one run says it all
    return rows


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=120)
    real = ", ".join(f"{count} {name}" for name, count in document["real"].items())
    console.print(f"real self-tests: {real}; {document['pairs']} pairs of processes")
    for title, rows in (("slower by", document["simulated"]), ("lost", document["recall"])):
        table = Table("series", title, "gates", "REGRESSION [95 %]", "other verdicts", "MDE")
        for row in rows:
            own = row["own"] if row["series"] else row["verdicts"]
            others = ", ".join(f"{v} {n}" for n, v in own.items() if n != "REGRESSION")
            share, low, high = row["regression"]
            mde = row["mde"].get(row["series"])
            table.add_row(
                row["series"] or "identical code",
                f"{row['slowdown']:.0%}",
                str(row["gates"]),
                f"{share:.1%} [{low:.1%}, {high:.1%}]",
                others,
                "" if mde is None else f"{mde:.1%}",
            )
        if rows:
            console.print(table)
