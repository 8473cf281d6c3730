"""From a route's name to a model directory: start, training with checkpoints, shipping."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msa_harness.files import check_writable
from msa_suites.models.architecture import ModelShape, build_config
from msa_suites.models.attention import INDEX_ENTRY, Network
from msa_suites.models.loading import EMBEDDED, load_model
from msa_suites.models.probe import RecallRow
from msa_suites.models.ship import LENGTHS, ship
from msa_suites.models.text import Corpus
from msa_suites.models.train import Progress, Trainer
from msa_suites.models.training_plan import TrainingPlan

#: Steps between two checkpoints.
CHECKPOINT_EVERY = 100
#: What a configuration says of its file, and not of its model.
_OF_THE_FILE = {"_name_or_path", "architectures", "dtype", "transformers_version"}
#: What changes nothing in training.
_NOT_OF_TRAINING = {"use_cache", "bos_token_id", "eos_token_id", "pad_token_id"}


@dataclass(frozen=True, slots=True)
class Start:
    """A model that training goes on from.

    Attributes:
        network: the model.
        sha256: of its weights.
        plain: whether it began without constructed biases; None where it does not say.
    """

    network: Network
    sha256: str
    plain: bool | None


def checkpoint_of(out: Path) -> Path:
    """Where the checkpoint of a run into ``out`` lies: beside it."""
    return out.with_name(out.name + ".checkpoint")


def load_start(route: str, folder: Path | None, *, device: str) -> Start | None:
    """The model that a route goes on from; None for a start of its own.

    Args:
        route: ``cpt`` goes on from the embedded model unless another is named; ``dense`` goes on
            from what is named, and has a start of its own without.
        folder: a dense model's directory, or None.
        device: a torch device.

    Raises:
        ValueError: ``pt`` with a start; a model whose configuration is not the embedded one's, or
            with an index branch.
        FileNotFoundError: there is no such model.
    """
    if folder is not None and route == "pt":
        raise ValueError(f"--start: wanted none for route pt, which begins anew, got {folder}")
    if folder is None and route == "cpt":
        folder = EMBEDDED
    if folder is None:
        return None
    model, _ = load_model(str(folder), device=device)
    if hasattr(model.config, INDEX_ENTRY):
        raise ValueError(f"--start: wanted a dense model, got one with an index branch in {folder}")
    theirs = model.config.to_dict()
    for name, value in build_config(ModelShape()).to_dict().items():
        if name not in _OF_THE_FILE | _NOT_OF_TRAINING and (got := theirs.get(name)) != value:
            raise ValueError(
                f"--start: wanted a model like the embedded one, with {name} {value}, got {got} in "
                f"{folder}"
            )
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return Start(model, sha256, _began_plain(folder / "training.json"))


def _began_plain(log: Path) -> bool | None:
    """Whether the log of a training run says that it began without constructed biases."""
    try:
        told = json.loads(log.read_text())["plan"]["plain_start"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not a model of this command
    return told if isinstance(told, bool) else None


def train_route(
    plan: TrainingPlan,
    out: Path,
    *,
    corpus: Corpus,
    device: str,
    start: Start | None,
    resume: bool,
    command: str,
    on_step: Callable[[Trainer, Progress], None],
    contexts: int = 16,
    lengths: Sequence[int] = LENGTHS,
) -> list[RecallRow]:
    """Train to the end and ship.

    Args:
        plan: what to train.
        out: receives the model directory; its checkpoint lies beside it until then.
        corpus: text.
        device: a torch device.
        start: model that the plan goes on from.
        resume: go on from the checkpoint.
        command: what a reader types to train it again.
        on_step: told of every step, after the checkpoint that may follow it.
        contexts: contexts per length of the final recall; perplexity is of twice as many windows.
        lengths: of the final recall, in bytes.

    Returns:
        Recall by length.

    Raises:
        ValueError: a checkpoint is there without ``resume``, or is not of this run; or ``out`` is
            not empty.
        RunError: ``out`` cannot be written.
        FileNotFoundError: ``resume`` without a checkpoint.
        TrainingError: the loss is no finite number.
    """
    checkpoint = checkpoint_of(out)
    if checkpoint.exists() and not resume:
        raise ValueError(
            f"--out: a checkpoint of an interrupted run is at {checkpoint}; "
            "go on with --resume, or remove it"
        )
    if resume and not checkpoint.exists():
        raise FileNotFoundError(f"--resume: wanted a checkpoint at {checkpoint}, got none")
    if not resume and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"--out: wanted a folder that is empty or not there yet, got {out}")
    check_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(plan, corpus=corpus, device=device, start=start and start.network)
    if resume:
        trainer.load(checkpoint)
    for step in trainer.run():
        if step.step % CHECKPOINT_EVERY == 0 or step.step == plan.steps:
            trainer.save(checkpoint)
        on_step(trainer, step)
    found = ship(trainer, out, command=command, contexts=contexts, lengths=lengths)
    checkpoint.unlink()
    return found
