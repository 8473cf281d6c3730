"""``msa-bench sweep``: perplexity and recall against budget and scorer, or of MSA's relatives."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from msa_suites.commands import options

if TYPE_CHECKING:
    from msa_suites.models.attention import MsaSettings
    from msa_suites.quality.relatives import Rule
    from msa_suites.quality.sweep import SweepRow

DEFAULT_SCORERS = ("max", "mean", "quest", "random", "recent")
DEFAULT_BUDGETS = (2, 3, 4, 8, 16)
#: Options that rules have values of their own for, and their defaults.
_OF_SCORERS = {"scorers": list(DEFAULT_SCORERS), "block": 32, "sink": 1, "local": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scorers",
        nargs="+",
        metavar="NAME",
        default=_OF_SCORERS["scorers"],
        help="block scorers",
    )
    parser.add_argument(
        "--relatives",
        nargs="*",
        metavar="NAME",
        default=None,
        help="instead of scorers, the rules of MSA and its relatives, all or these, at equal "
        "budgets in tokens; see `msa-bench list relatives`",
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=options.positive,
        metavar="K",
        default=None,
        help="blocks kept, the forced ones included (2 3 4 8 16), or tokens with --relatives "
        "(128 256 512)",
    )
    parser.add_argument(
        "--block", type=options.positive, default=_OF_SCORERS["block"], help="tokens per block"
    )
    parser.add_argument(
        "--sink", type=int, default=_OF_SCORERS["sink"], help="first blocks that are forced"
    )
    parser.add_argument(
        "--local", type=options.positive, default=_OF_SCORERS["local"], help="newest blocks forced"
    )
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
    options.add_out(
        parser,
        "keep the rows here as sweep.json (relatives.json), and go on from them with --resume",
    )
    options.add_resume(parser)
    options.add_seed(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_harness.files import alone
    from msa_suites.models.attention import MsaSettings
    from msa_suites.quality.sweep import DENSE, as_json, measure_points
    from msa_suites.quality.sweep_file import keep_rows, kept_rows
    from msa_suites.runner import progress

    rules = _rules(args)
    _settle_budgets(args, rules)
    settings = MsaSettings(
        block=args.block,
        sink_blocks=args.sink,
        local_blocks=args.local,
        seed=args.seed,
        dense_layers=tuple(args.dense_layers),
        implementation=args.implementation,
        topk=max(args.budgets),
    )
    points = _points(args, rules, settings)
    setup: dict[str, Any] = {
        "settings": {**settings.as_dict(), "topk": None},
        "model": args.model or "embedded",
        "length": args.length,
        "contexts": args.contexts,
    }
    if rules:
        setup["relatives"] = [asdict(rule) for rule in rules]
    # Budgets in tokens have a file of their own: the pages of a run read blocks in sweep.json.
    name = "relatives.json" if rules else "sweep.json"
    file = None if args.out is None else args.out / name
    rows: list[SweepRow] = []
    total = len(points) + 1
    guard = alone(args.out) if args.out is not None else nullcontext()
    with guard, progress("sweep", options.stderr_console()) as say:
        say(f"sweep: {total} points")
        for row in measure_points(
            args.model or "",
            points,
            length=args.length,
            contexts=args.contexts,
            device=args.device,
            done=kept_rows(file, setup, resume=args.resume),
        ):
            rows.append(row)
            where = f"{row.scorer} {_budget(row.budget, rules)}" if row.budget else DENSE
            say(f"sweep {len(rows)}/{total}: {where}: recall {row.recall:.2f}")
            if file is not None:
                keep_rows(file, rows, setup)
    if args.json:
        options.print_json({**as_json(rows), "setup": setup})
    else:
        _print(rows, args, rules)
    return 0


def _budget(budget: int, rules: Sequence[Rule]) -> str:
    return f"{budget} tokens" if rules else f"k {budget}"


def _rules(args: argparse.Namespace) -> list[Rule]:
    """The rules of ``--relatives``; empty without it.

    Raises:
        ValueError: an unknown rule, or an option that only scorers take.
    """
    from msa_suites.quality.relatives import RULES

    if args.relatives is None:
        return []
    for name, default in _OF_SCORERS.items():
        if (value := getattr(args, name)) != default:
            raise ValueError(
                f"--{name}: wanted none with --relatives, whose rules have their own, got {value}"
            )
    return [RULES[name] for name in options.pick("--relatives", args.relatives or RULES, RULES)]


def _settle_budgets(args: argparse.Namespace, rules: Sequence[Rule]) -> None:
    """Give ``--budgets`` its default, and see that names and numbers make sense.

    Raises:
        ValueError: an unknown scorer, a budget that stands twice or is less than what is forced.
    """
    from msa.scorers import SCORERS
    from msa_suites.quality.relatives import BUDGETS

    args.budgets = args.budgets or list(BUDGETS if rules else DEFAULT_BUDGETS)
    budgets = [str(k) for k in args.budgets]
    if rules:
        options.pick("--budgets", budgets, budgets)
        return
    options.pick("--scorers", args.scorers, SCORERS)
    options.pick("--budgets", budgets, [str(k) for k in range(1, 4097)])
    if min(args.budgets) < args.sink + args.local:
        raise ValueError(
            f"--budgets: wanted at least the {args.local} local + {args.sink} sink blocks that "
            f"are forced, got {min(args.budgets)}"
        )


def _points(
    args: argparse.Namespace, rules: Sequence[Rule], settings: MsaSettings
) -> dict[tuple[str, int], MsaSettings]:
    """What is measured; all of it is known to make sense before the first point is."""
    from msa_suites.quality.relatives import rule_points
    from msa_suites.quality.sweep import scorer_points

    if not rules:
        return scorer_points(args.scorers, args.budgets, settings)
    try:
        return rule_points(rules, args.budgets, settings)
    except ValueError as error:
        raise ValueError(f"--budgets: {str(error).removeprefix('budget_tokens: ')}") from None


def _print(rows: list[SweepRow], args: argparse.Namespace, rules: Sequence[Rule]) -> None:
    from rich.console import Console
    from rich.table import Table

    from msa_suites.quality.sweep import DENSE

    table = Table(title=f"Recall of 12 facts at {args.length} bytes (perplexity against dense)")
    table.add_column("rule" if rules else "scorer")
    found = {(row.scorer, row.budget): row for row in rows}
    for budget in args.budgets:
        table.add_column(_budget(budget, rules), justify="right")
    for name in [rule.name for rule in rules] or args.scorers:
        cells = (found[name, budget] for budget in args.budgets)
        table.add_row(name, *(f"{c.recall:.2f} ({c.perplexity_change:+.1%})" for c in cells))
    console = Console()
    console.print(table)
    dense = found[DENSE, 0]
    console.print(
        f"dense: recall {dense.recall:.2f}, perplexity {dense.perplexity:.3f} per byte, "
        f"{dense.n} questions a point"
    )
    for rule in rules:
        console.print(f"\n{rule.name} ({rule.source}), {rule.pieces}", highlight=False)
        console.print(f"  faithful: {rule.faithful}\n  stand-in: {rule.stand_in}", highlight=False)
