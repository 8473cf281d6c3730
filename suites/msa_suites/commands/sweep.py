"""``msa-bench sweep``: perplexity and recall against budget and scorer."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from msa_suites.commands import options

if TYPE_CHECKING:
    from msa_suites.quality.sweep import SweepRow

DEFAULT_SCORERS = ("max", "mean", "quest", "random", "recent")
DEFAULT_BUDGETS = (2, 3, 4, 8, 16)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scorers", nargs="+", metavar="NAME", default=list(DEFAULT_SCORERS), help="block scorers"
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=options.positive,
        metavar="K",
        default=list(DEFAULT_BUDGETS),
        help="blocks kept, the forced ones included",
    )
    parser.add_argument("--block", type=options.positive, default=32, help="tokens per block")
    parser.add_argument("--sink", type=int, default=1, help="first blocks that are forced")
    parser.add_argument("--local", type=options.positive, default=1, help="newest blocks forced")
    parser.add_argument(
        "--length", type=options.positive, default=2048, help="bytes of context: 2048 to 8192"
    )
    parser.add_argument(
        "--contexts", type=options.positive, default=8, help="contexts, twelve facts each"
    )
    parser.add_argument(
        "--dense-layers", type=int, nargs="*", default=[], help="layers that stay dense"
    )
    options.add_implementation(parser)
    options.add_model(parser)
    options.add_device(parser)
    options.add_out(parser, "keep the rows here as sweep.json, and go on from them with --resume")
    options.add_resume(parser)
    options.add_seed(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa.scorers import SCORERS
    from msa_harness.files import alone
    from msa_suites.models.attention import MsaSettings
    from msa_suites.quality.sweep import DENSE, as_json, sweep
    from msa_suites.runner import progress

    options.pick("--scorers", args.scorers, SCORERS)
    options.pick("--budgets", map(str, args.budgets), [str(k) for k in range(1, 4097)])
    forced = args.sink + args.local
    if min(args.budgets) < forced:
        raise ValueError(
            f"--budgets: wanted at least the {args.local} local + {args.sink} sink blocks that "
            f"are forced, got {min(args.budgets)}"
        )
    settings = MsaSettings(
        block=args.block,
        sink_blocks=args.sink,
        local_blocks=args.local,
        seed=args.seed,
        dense_layers=tuple(args.dense_layers),
        implementation=args.implementation,
        topk=max(args.budgets),
    )
    setup = {
        "settings": {**settings.as_dict(), "topk": None},
        "model": args.model or "embedded",
        "length": args.length,
        "contexts": args.contexts,
    }
    rows: list[SweepRow] = []
    total = len(args.scorers) * len(args.budgets) + 1
    guard = alone(args.out) if args.out is not None else nullcontext()
    with guard, progress("sweep", options.stderr_console()) as say:
        say(f"sweep: {total} points")
        for row in sweep(
            args.model or "",
            scorers=args.scorers,
            budgets=args.budgets,
            settings=settings,
            length=args.length,
            contexts=args.contexts,
            device=args.device,
            done=_kept(args, setup),
        ):
            rows.append(row)
            where = DENSE if row.scorer == DENSE else f"{row.scorer} k {row.budget}"
            say(f"sweep {len(rows)}/{total}: {where}: recall {row.recall:.2f}")
            if args.out is not None:
                _keep(args.out, {**as_json(rows), "setup": setup})
    document = {**as_json(rows), "setup": setup}
    if args.json:
        options.print_json(document)
    else:
        _print(rows, args)
    return 0


def _kept(args: argparse.Namespace, setup: dict[str, object]) -> list[SweepRow]:
    """Rows of an interrupted sweep with the same set-up."""
    from msa_suites.quality.sweep import SweepRow

    file = None if args.out is None else args.out / "sweep.json"
    if not args.resume:
        if file is not None and file.exists():
            raise ValueError(f"--out: a sweep is at {file} already; go on with --resume")
        return []
    if file is None or not file.exists():
        raise ValueError(f"--resume: wanted sweep.json in --out, got none at {file}")
    try:
        kept = json.loads(file.read_text())
        rows = [SweepRow(**row) for row in [kept["dense"], *kept["rows"]] if row]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: wanted a recorded sweep, got {error}") from error
    if kept["setup"] != setup:
        raise ValueError(f"{file}: wanted a sweep with {setup}, got one with {kept['setup']}")
    return rows


def _keep(folder: Path, document: dict[str, object]) -> None:
    from msa_harness.records import write_atomic

    write_atomic(folder / "sweep.json", json.dumps(document, indent=1) + "\n")


def _print(rows: list[SweepRow], args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from msa_suites.quality.sweep import DENSE

    table = Table(title=f"Recall of 12 facts at {args.length} bytes (perplexity against dense)")
    table.add_column("scorer")
    found = {(row.scorer, row.budget): row for row in rows}
    for budget in args.budgets:
        table.add_column(f"k {budget}", justify="right")
    for scorer in args.scorers:
        cells = (found[scorer, budget] for budget in args.budgets)
        table.add_row(scorer, *(f"{c.recall:.2f} ({c.perplexity_change:+.1%})" for c in cells))
    console = Console()
    console.print(table)
    dense = found[DENSE, 0]
    console.print(
        f"dense: recall {dense.recall:.2f}, perplexity {dense.perplexity:.3f} per byte, "
        f"{dense.n} questions a point"
    )
