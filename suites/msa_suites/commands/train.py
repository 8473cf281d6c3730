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

if TYPE_CHECKING:
    from msa_suites.models.attention import Network
    from msa_suites.models.train import Trainer

ROUTES = ("dense", "pt", "cpt")
#: Steps between two checkpoints, a multiple of what a line of the log sums up.
CHECKPOINT_EVERY = 100


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

    from msa_suites.models.ship import ship
    from msa_suites.models.text import load_corpus
    from msa_suites.models.train import Trainer
    from msa_suites.models.training_plan import plan_route

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
    if args.resume and not checkpoint.exists():
        raise FileNotFoundError(f"--resume: wanted a checkpoint at {checkpoint}, got none")
    start, sha = _start(args)
    plan = plan_route(args.route, seed=args.seed, plain_start=args.plain_start, start=sha)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(plan, corpus=load_corpus(args.text), device=args.device, start=start)
    if args.resume:
        trainer.load(checkpoint)
    _train(trainer, checkpoint)
    recall = ship(trainer, args.out, command=_command(args), contexts=args.contexts)
    checkpoint.unlink()
    rows = [{"length": r.length, "recall": r.recall, "low": r.low, "high": r.high} for r in recall]
    if args.json:
        print_json({"model": str(args.out), "route": plan.route, "steps": plan.steps,
                    "tokens": plan.tokens, "recall": rows})  # fmt: skip
    else:
        for row in rows:
            print(f"recall at {row['length']}: {row['recall']:.3f}")
        print(f"model written to {args.out}")
    return 0


def _start(args: argparse.Namespace) -> tuple[Network | None, str]:
    """The model that training goes on from, and the hash of its weights."""
    import hashlib

    from msa_suites.models.architecture import ModelShape, build_config
    from msa_suites.models.attention import INDEX_ENTRY
    from msa_suites.models.loading import EMBEDDED, load_model

    if args.start is not None and args.route == "pt":
        raise ValueError(f"--start: wanted none for route pt, which begins anew, got {args.start}")
    if args.plain_start and (args.start is not None or args.route == "cpt"):
        raise ValueError("--plain-start: wanted no model that is gone on from, got one")
    folder: Path | None = EMBEDDED if args.route == "cpt" and not args.start else args.start
    if folder is None:
        return None, ""
    model, _ = load_model(str(folder), device=args.device)
    wanted = build_config(ModelShape())
    for name in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers"):
        if getattr(model.config, name) != getattr(wanted, name):
            raise ValueError(
                f"--start: wanted a model with {name} {getattr(wanted, name)}, as this text and "
                f"this plan have it, got {getattr(model.config, name)} in {folder}"
            )
    if hasattr(model.config, INDEX_ENTRY):
        raise ValueError(f"--start: wanted a dense model, got one with an index branch in {folder}")
    return model, hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _train(trainer: Trainer, checkpoint: Path) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = stderr_console()
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=trainer.plan.steps, completed=trainer.step)
        for step in trainer.run():
            index = "" if step.index_kl is None else f", index {step.index_kl:.3f}"
            bar.update(
                task,
                completed=step.step,
                description=f"{step.phase}, length {step.length}, text {step.text_nll:.3f} nats, "
                f"recall {step.answer_accuracy:.2f}{index}",
            )
            if step.step % CHECKPOINT_EVERY == 0:
                trainer.save(checkpoint)
                last = trainer.log[-1]
                said = ", ".join(
                    f"{name.replace('_', ' ')} {value}"
                    for name, value in last.items()
                    if value is not None and name != "step"
                )
                console.print(f"step {step.step}: {said}")
    trainer.save(checkpoint)


def _command(args: argparse.Namespace) -> str:
    """What a reader types to train it again."""
    return "msa-bench train --route {} --seed {} --out DIR{}{}".format(
        args.route,
        args.seed,
        " --start DENSE" if args.start is not None else "",
        " --plain-start" if args.plain_start else "",
    )
