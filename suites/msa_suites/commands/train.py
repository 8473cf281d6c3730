"""``msa-bench train``: train the embedded model, resumable at any step."""

from __future__ import annotations

import argparse
from pathlib import Path

from msa_suites.commands.options import (
    add_device,
    add_json,
    add_seed,
    positive,
    print_json,
    stderr_console,
)

ROUTES = ("dense",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--route", choices=ROUTES, default="dense", help="dense: a dense model from its own start"
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
        "--contexts", type=positive, default=16, help="contexts per length of the final recall"
    )
    parser.add_argument(
        "--text", type=Path, default=None, help="folder of *.py files (default: Python's own)"
    )
    add_seed(parser)
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import torch
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from msa_suites.models.ship import ship
    from msa_suites.models.text import load_corpus
    from msa_suites.models.train import LOG_EVERY, Trainer, TrainingPlan

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: wanted a machine with CUDA for 'cuda', got none")
    checkpoint = args.out.with_name(args.out.name + ".checkpoint")
    if checkpoint.exists() and not args.resume:
        raise ValueError(
            f"--out: a checkpoint of an interrupted run is at {checkpoint}; "
            "go on with --resume, or remove it"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    plan = TrainingPlan(seed=args.seed, plain_start=args.plain_start)
    trainer = Trainer(plan, corpus=load_corpus(args.text), device=args.device)
    if args.resume:
        if not checkpoint.exists():
            raise FileNotFoundError(f"--resume: wanted a checkpoint at {checkpoint}, got none")
        trainer.load(checkpoint)
    console = stderr_console()
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=plan.steps, completed=trainer.step)
        for step in trainer.run():
            bar.update(
                task,
                completed=step.step,
                description=f"length {step.length}, text {step.text_nll:.3f} nats, "
                f"recall {step.answer_accuracy:.2f}",
            )
            if step.step % (2 * LOG_EVERY) == 0:
                trainer.save(checkpoint)
                last = trainer.log[-1]
                console.print(
                    f"step {step.step}: length {step.length}, text {last['text_nll']:.3f} nats, "
                    f"answers right {last['answer_accuracy']:.3f}"
                )
    trainer.save(checkpoint)
    command = "msa-bench train --route dense --seed {} --out DIR{}".format(
        args.seed, " --plain-start" if args.plain_start else ""
    )
    recall = ship(trainer, args.out, command=command, contexts=args.contexts)
    checkpoint.unlink()
    rows = [{"length": r.length, "recall": r.recall, "low": r.low, "high": r.high} for r in recall]
    if args.json:
        print_json({"model": str(args.out), "steps": plan.steps, "recall": rows})
    else:
        for row in rows:
            print(f"recall at {row['length']}: {row['recall']:.3f}")
        print(f"model written to {args.out}")
    return 0
