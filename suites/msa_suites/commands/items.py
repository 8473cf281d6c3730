"""``msa-bench items``: RULER's tasks and plain text for a model's tokenizer, once for all runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from msa_suites.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from msa_suites.ruler import DATA_SETS, HAYSTACKS

    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of items; one that is there is gone on with",
    )
    parser.add_argument(
        "--tokenizer",
        required=True,
        metavar="PATH",
        help="directory or hub id of the model whose tokens are counted",
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=options.positive,
        metavar="TOKENS",
        default=[4096, 32768],
        help="tokens of a prompt and its answer together",
    )
    options.add_only(parser, "--task", "only this task; see `msa-bench list tasks`")
    parser.add_argument(
        "--samples", type=options.positive, default=100, metavar="N", help="items a task and length"
    )
    parser.add_argument(
        "--haystack",
        metavar="NAME",
        default="topics",
        help=f"what needles are hidden in: {HAYSTACKS[0]} (help pages of Python, always here), "
        f"{HAYSTACKS[1]} (those of lm-eval, from the Hub; published scores are on them), or a file",
    )
    parser.add_argument(
        "--text",
        metavar="TEXT",
        default="",
        help="text of text_perplexity and text_tail_nll: a file, or "
        "organisation/data-set[:configuration[:split]]",
    )
    for name in DATA_SETS:
        parser.add_argument(
            f"--{name}",
            type=Path,
            metavar="FILE",
            help=f"the JSON file of {name} (default: where lm-eval takes it from)",
        )
    options.add_seed(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_harness.files import alone
    from msa_suites.ruler import DATA_SETS
    from msa_suites.ruler.drawing import TASKS
    from msa_suites.ruler.making import ALL_TASKS, Wanted, make
    from msa_suites.ruler.texts import TEXT_TASKS
    from msa_suites.ruler.tokens import load_tokenizer
    from msa_suites.runner import progress

    local = [name for name in DATA_SETS if getattr(args, name)]
    default = [name for name, task in TASKS.items() if task.data_set in ("", *local)]
    default += TEXT_TASKS if args.text else ()
    tasks = options.pick("--task", args.task or default, ALL_TASKS)
    if not args.text and (needs := [name for name in tasks if name in TEXT_TASKS]):
        raise ValueError(f"--text: wanted a text for {', '.join(needs)}, got none")
    options.pick("--lengths", map(str, args.lengths), map(str, args.lengths))
    wanted = Wanted(
        tasks=tuple(tasks),
        lengths=tuple(sorted(args.lengths)),
        samples=args.samples,
        seed=args.seed,
        haystack=args.haystack,
        text=args.text,
        files=tuple((name, getattr(args, name)) for name in local),
    )
    tokenizer = load_tokenizer(args.tokenizer)
    with alone(args.out), progress("items", options.stderr_console()) as say:
        folder = make(args.out, tokenizer, wanted, say=say)
    if args.json:
        options.print_json(
            {"folder": str(args.out), "settings": folder.settings, "files": folder.files}
        )
        return 0
    for name, entry in folder.files.items():
        low, high = entry["tokens"]
        print(f"{name}: {entry['items']} items, {low} to {high} tokens")
    return 0
