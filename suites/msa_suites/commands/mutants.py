"""``msa-bench mutants``: small automatic changes of the method's code, and what the gate kills."""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from msa_suites.commands import options

FILE = "mutants.jsonl"
_SURVIVED = ("SURVIVED", "survived, equivalent")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--count", type=options.positive, default=300, metavar="N", help="mutants to draw"
    )
    options.add_only(parser, "--module", "only of this module")
    parser.add_argument(
        "--again",
        type=Path,
        metavar="FILE",
        help="results of an earlier run: try what survived there, keep the rest; no drawing",
    )
    options.add_at_once(parser, "mutants measured at the same time")
    options.add_timeout(parser, 30)
    options.add_out(parser, "directory of the results (default: runs/<time>-mutants)")
    options.add_resume(parser)
    options.add_seed(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_suites import runner
    from msa_suites.faults.killing import again, drawn, kill
    from msa_suites.faults.mutation import MODULES
    from msa_suites.faults.run import FaultsError, Matrix
    from msa_suites.self_test import self_test

    options.settle_out(args, "mutants")
    modules = options.pick("--module", args.module or MODULES, MODULES)
    kept: list[dict[str, Any]] = []
    if args.again:
        if args.again.resolve() == (args.out / FILE).resolve():
            raise ValueError(f"--again: wanted results of another folder than --out {args.out}")
        kept, chosen = again(_rows(args.again))
    else:
        chosen = drawn(args.count, args.seed, modules)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = _read(args.out / FILE, kept)
    known = {row["mutant"] for row in rows}
    total = len(kept) + len(chosen)
    session, gates = self_test(timeout=args.timeout, threads=1, forked=True)
    with (
        (args.out / FILE).open("a") as file,
        tempfile.TemporaryDirectory(prefix="msa-mutants-") as marks,
        runner.progress("mutants", options.stderr_console()) as say,
    ):
        left = [one for one in chosen if one.name not in known]
        for fate in kill(Matrix(session, gates, Path(marks)), left, at_once=args.at_once):
            rows.append(fate.as_dict())
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
            word = f"killed by {fate.gate}" if fate.gate else _SURVIVED[bool(fate.equivalent)]
            say(f"{len(rows)}/{total} {word}: {fate.mutant} {fate.what} ({fate.seconds} s)")
    wrong = [row["mutant"] for row in rows if row["gate"] and row["equivalent"]]
    other = [row for row in rows if not row["equivalent"]]
    killed = sum(bool(row["gate"]) for row in other)
    same = len(rows) - len(other)
    document = {"mutants": rows, "killed": killed, "total": len(other), "equivalent": same}
    if args.json:
        options.print_json(document)
    else:
        _print(rows)
        share = killed / max(len(other), 1)
        print(f"{killed} of {len(other)} mutants killed ({share:.1%}), {same} equivalent")
        print(f"results: {args.out / FILE}")
    if wrong:
        raise FaultsError(f"equivalent.toml: these were killed all the same: {', '.join(wrong)}")
    return 0


def _read(path: Path, otherwise: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results of an interrupted run, or those to begin with, written whole.

    What is claimed of them is read anew: survivors are explained after they are known.
    """
    from msa_suites.faults.equivalents import why_equivalent

    found = _rows(path) if path.exists() else otherwise
    rows = [{**row, "equivalent": why_equivalent(row["mutant"])} for row in found]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _rows(path: Path) -> list[dict[str, Any]]:
    """The results in a file; a torn line is measured again.

    Raises:
        ValueError: a file of something else.
    """
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            rows.append(json.loads(line))
    if not all(
        isinstance(row, dict) and {"mutant", "gate", "what", "source"} <= row.keys() for row in rows
    ):
        raise ValueError(f"{path}: wanted results of mutants, got something else")
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("survivor", "change", "line", "equivalent because")
    for row in rows:
        if not row["gate"]:
            table.add_row(row["mutant"], row["what"], row["source"], row["equivalent"])
    Console(highlight=False, width=140).print(table)
