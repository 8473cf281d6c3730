"""``msa-bench train``: train the embedded model and its index branch, resumable at any step."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from msa_suites.commands.options import (
    add_device,
    add_json,
    add_seed,
    positive,
    print_json,
    stderr_console,
)
from msa_suites.models import ROUTES

if TYPE_CHECKING:
    from msa_suites.models.train import Progress, Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--route",
        choices=ROUTES,
        default="dense",
        help="dense: full attention; pt: with an index branch from the start, first warm-up, then "
        "sparse; cpt: the same, going on from a dense model",
    )
    parser.add_argument(
        "--start",
        type=Path,
        default=None,
        metavar="DIR",
        help="dense model that cpt goes on from (default: the embedded one); with dense: go on "
        "densely, at the same steps as cpt",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="receives the model directory"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint beside --out"
    )
    parser.add_argument(
        "--plain-start",
        action="store_true",
        help="control run: a plain random start instead of the constructed one",
    )
    parser.add_argument("--threads", type=positive, default=None, help="CPU threads")
    parser.add_argument(
        "--contexts",
        type=positive,
        default=16,
        help="contexts per length of the final recall; perplexity is of twice as many windows",
    )
    parser.add_argument(
        "--text", type=Path, default=None, help="folder of *.py files (default: Python's own)"
    )
    add_seed(parser)
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import torch
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from msa_suites.models.routes import CHECKPOINT_EVERY, load_start, train_route
    from msa_suites.models.text import load_corpus
    from msa_suites.models.training_plan import plan_route

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: wanted a machine with CUDA for 'cuda', got none")
    if args.plain_start and (args.start is not None or args.route == "cpt"):
        raise ValueError("--plain-start: wanted no model that is gone on from, got one")
    start = load_start(args.route, args.start, device=args.device)
    plan = plan_route(
        args.route,
        seed=args.seed,
        plain_start=args.plain_start if start is None else start.plain,
        start="" if start is None else start.sha256,
    )
    console = stderr_console()
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=plan.steps)

        def on_step(trainer: Trainer, step: Progress) -> None:
            index = "" if step.index_kl is None else f", index {step.index_kl:.3f}"
            bar.update(
                task,
                completed=step.step,
                description=f"{step.phase}, length {step.length}, text {step.text_nll:.3f} nats, "
                f"recall {step.answer_accuracy:.2f}{index}",
            )
            if step.step % CHECKPOINT_EVERY == 0:
                said = ", ".join(
                    f"{name.replace('_', ' ')} {value}"
                    for name, value in trainer.log[-1].items()
                    if value is not None and name != "step"
                )
                console.print(f"step {step.step}: {said}")

        recall = train_route(
            plan,
            args.out,
            corpus=load_corpus(args.text),
            device=args.device,
            start=start,
            resume=args.resume,
            command=_command(args),
            on_step=on_step,
            contexts=args.contexts,
        )
    rows = [{"length": r.length, "recall": r.recall, "low": r.low, "high": r.high} for r in recall]
    if args.json:
        told = {"model": str(args.out), "route": plan.route, "steps": plan.steps}
        print_json({**told, "tokens": plan.tokens, "recall": rows})
    else:
        for row in rows:
            print(f"recall at {row['length']}: {row['recall']:.3f}")
        print(f"model written to {args.out}")
    return 0


def _command(args: argparse.Namespace) -> str:
    """What a reader types to train it again."""
    return "msa-bench train --route {} --seed {} --out DIR{}{}{}".format(
        args.route,
        args.seed,
        " --start DENSE" if args.start is not None else "",
        " --plain-start" if args.plain_start else "",
        " --text TEXT" if args.text is not None else "",
    )
