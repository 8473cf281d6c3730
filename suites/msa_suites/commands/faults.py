"""``msa-bench faults``: known faults put into the code, and which gate caught each."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa_suites.commands import options

if TYPE_CHECKING:
    from msa_suites.faults.run import Caught
    from msa_suites.faults.table import Fault


#: Share of the faults that really happened whose cause the report must name, of at least so many.
_NAMED, _JUDGED = 0.8, 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_only(parser, "--only", "only this fault")
    options.add_only(parser, "--class", "only faults of this class", metavar="CLASS")
    parser.add_argument(
        "--one-per-class", action="store_true", help="a quick run: the first fault of each class"
    )
    options.add_at_once(parser, "faults measured at the same time, the timed ones excepted")
    options.add_timeout(parser, 60)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_suites import runner
    from msa_suites.faults.run import Matrix
    from msa_suites.self_test import self_test

    chosen = _chosen(args)
    threads = options.default_threads()
    session, gates = self_test(timeout=args.timeout, threads=threads, forked=True)
    rows: list[Caught] = []
    with (
        tempfile.TemporaryDirectory(prefix="msa-faults-") as marks,
        runner.progress("faults", options.stderr_console()) as say,
    ):
        matrix = Matrix(session, gates, Path(marks))
        for caught in matrix.run(chosen, at_once=args.at_once):
            rows.append(caught)
            word = "caught" if caught.by and caught.applied else "MISSED"
            say(f"{len(rows)}/{len(chosen)} {word}: {caught.fault.name} ({caught.seconds:.1f} s)")
    document = _document(rows)
    if args.json:
        options.print_json(document)
    else:
        _print(rows, document)
    few = document["happened"] >= _JUDGED and document["named"] < _NAMED * document["happened"]
    return 0 if all(row.by and row.applied for row in rows) and not few else 1


def _chosen(args: argparse.Namespace) -> list[Fault]:
    from msa_suites.faults.table import CLASSES, faults

    table = faults()
    names = options.pick("--only", args.only or table, table)
    kinds = options.pick("--class", vars(args)["class"] or CLASSES, CLASSES)
    chosen = [table[name] for name in names if table[name].kind in kinds]
    if args.one_per_class:
        chosen = list({one.kind: one for one in reversed(chosen)}.values())[::-1]
    runnable = [one for one in chosen if one.needs == "cpu"]
    if not runnable:
        raise ValueError("--only, --class: wanted a fault that can run here, got none")
    return runnable


def _document(rows: list[Caught]) -> dict[str, Any]:
    return {
        "faults": [row.as_dict() for row in rows],
        "killed": sum(bool(row.by) and row.applied for row in rows),
        "total": len(rows),
        "named": sum(row.named for row in rows if row.fault.seen),
        "happened": sum(bool(row.fault.seen) for row in rows),
    }


def _print(rows: list[Caught], document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("fault", "class", "gate", "verdict", "s", "caught by")
    for row in rows:
        more = f" and {len(row.by) - 1} more" if len(row.by) > 1 else ""
        found = row.by[0] + more if row.by else row.detail
        table.add_row(
            row.fault.name,
            row.fault.kind,
            row.gate or f"MISSED by {', '.join(row.fault.gates)}",
            row.verdict,
            f"{row.seconds:.1f}",
            found if row.applied else "it did not run: the fault no longer applies",
        )
    Console(highlight=False, width=150).print(table)
    print(f"{document['killed']} of {document['total']} faults caught")
    if document["happened"]:
        print(
            f"{document['named']} of the {document['happened']} that really happened are named by "
            "their cause"
        )
        for row in rows:
            if row.fault.seen and not row.named:
                print(f"  not named: {row.fault.name}: {row.detail[:200]}")
