"""Training of the embedded model: step-based, seeded, resumable, on whatever device there is.

The schedule counts steps, never seconds, so that a slower machine gives the same model.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msa_suites.models.architecture import ModelShape, build_model
from msa_suites.models.text import Corpus, load_corpus
from msa_suites.models.training_data import ANSWER, TEXT, make_sequence

#: (sequence length, sequences a step, steps): about 2,000 tokens a step until 2,048.
CURRICULUM: tuple[tuple[int, int, int], ...] = (
    (128, 16, 400),
    (256, 8, 700),
    (512, 4, 600),
    (1024, 2, 800),
    (2048, 1, 500),
    (4096, 1, 250),
    (8192, 1, 100),
)


#: Steps that one line of the training log sums up.
LOG_EVERY = 50


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the result of a training run."""

    seed: int = 0
    plain_start: bool = False
    shape: ModelShape = field(default_factory=ModelShape)
    curriculum: tuple[tuple[int, int, int], ...] = CURRICULUM
    muon_lr: float = 4e-3
    adam_lr: float = 2e-3
    warmup_steps: int = 50
    decay_share: float = 0.35
    answer_weight: float = 1.5

    @property
    def steps(self) -> int:
        return sum(steps for _, _, steps in self.curriculum)

    def length_at(self, step: int) -> tuple[int, int]:
        """Sequence length and batch of ``step``."""
        for length, batch, steps in self.curriculum:
            if step < steps:
                return length, batch
            step -= steps
        raise ValueError(f"step: wanted below {self.steps}, got {self.steps + step}")

    def rate_at(self, step: int) -> float:
        """Factor on both learning rates: linear warm-up, flat, then linear decay to a tenth."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        left = (self.steps - step) / max(1, round(self.steps * self.decay_share))
        return warm * max(0.05, min(1.0, left))


@dataclass(frozen=True)
class Progress:
    """What one step reports."""

    step: int
    steps: int
    length: int
    text_nll: float
    answer_nll: float
    answer_accuracy: float
    tokens_per_second: float


def weighted_loss(
    logits: Tensor, tokens: Tensor, kind: Tensor, answer_weight: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean text cross-entropy plus ``answer_weight`` times the mean answer cross-entropy.

    Args:
        logits: ``[B, T, V]``.
        tokens: int64 ``[B, T]``.
        kind: uint8 ``[B, T]``, what each token counts as.
        answer_weight: weight of the answers beside the text.

    Returns:
        total, text and answer loss in nats, and the share of answer bytes predicted right.
    """
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    target = tokens[:, 1:].reshape(-1)
    target_kind = kind[:, 1:].reshape(-1)
    nll = F.cross_entropy(flat, target, reduction="none")
    is_text, is_answer = target_kind == TEXT, target_kind == ANSWER
    text = nll[is_text].mean()
    if not bool(is_answer.any()):
        nothing = torch.zeros((), device=logits.device)
        return text, text, nothing, nothing
    answer = nll[is_answer].mean()
    right = (flat[is_answer].argmax(-1) == target[is_answer]).float().mean()
    return text + answer_weight * answer, text, answer, right


class Trainer:
    """A training run that can be stopped and resumed at any step.

    Args:
        plan: what to train.
        corpus: text to train on; None reads the standard library.
        device: a torch device.
    """

    def __init__(self, plan: TrainingPlan, *, corpus: Corpus | None, device: str) -> None:
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.corpus = corpus or load_corpus()
        self.device = torch.device(device)
        self.model = build_model(plan.shape, plain_start=plan.plain_start).to(self.device)
        self.model.train()
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            is_matrix = parameter.ndim == 2 and "embed" not in name
            (matrices if is_matrix else rest).append(parameter)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=plan.muon_lr, weight_decay=0.0),
            torch.optim.AdamW(rest, lr=plan.adam_lr, weight_decay=0.0, betas=(0.9, 0.95)),
        ]
        self.base_rates = (plan.muon_lr, plan.adam_lr)
        self.step = 0
        #: Means over every ``LOG_EVERY`` steps.
        self.log: list[dict[str, float]] = []
        self._since_log: list[Progress] = []

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Tokens and kinds ``[B, T]`` of a step: a function of the seed and the step alone."""
        length, count = self.plan.length_at(step)
        rng = np.random.default_rng((self.plan.seed, step))
        rows = [make_sequence(self.corpus.train, rng, length) for _ in range(count)]
        tokens = torch.from_numpy(np.stack([row.tokens for row in rows])).long()
        kinds = torch.from_numpy(np.stack([row.kind for row in rows]))
        return tokens.to(self.device), kinds.to(self.device)

    def run(self) -> Iterator[Progress]:
        """Train from the current step to the end, yielding after every step."""
        while self.step < self.plan.steps:
            started = time.perf_counter()
            tokens, kind = self.batch(self.step)
            for optimizer, rate in zip(self.optimizers, self.base_rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * self.plan.rate_at(self.step)
                optimizer.zero_grad(set_to_none=True)
            logits = self.model(tokens, use_cache=False).logits
            loss, text, answer, right = weighted_loss(logits, tokens, kind, self.plan.answer_weight)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"training loss at step {self.step}: got {loss.item()}")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step += 1
            seconds = time.perf_counter() - started
            progress = Progress(
                step=self.step,
                steps=self.plan.steps,
                length=tokens.shape[1],
                text_nll=text.item(),
                answer_nll=answer.item(),
                answer_accuracy=right.item(),
                tokens_per_second=tokens.numel() / seconds,
            )
            self._note(progress)
            yield progress

    def _note(self, progress: Progress) -> None:
        self._since_log.append(progress)
        if len(self._since_log) == LOG_EVERY or progress.step == self.plan.steps:
            means = {
                name: round(
                    sum(getattr(p, name) for p in self._since_log) / len(self._since_log), 4
                )
                for name in ("text_nll", "answer_nll", "answer_accuracy")
            }
            self.log.append({"step": progress.step, "length": progress.length, **means})
            self._since_log = []

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file appears whole or not at all."""
        state = {
            "plan": json.dumps(asdict(self.plan)),
            "corpus": self.corpus.sha256,
            "step": self.step,
            "log": self.log,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same plan and text.

        Raises:
            ValueError: the checkpoint is of another plan or of other text.
        """
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        wanted = (json.dumps(asdict(self.plan)), self.corpus.sha256)
        if (state["plan"], state["corpus"]) != wanted:
            raise ValueError(
                f"checkpoint {path}: wanted one of plan {wanted[0]} and text {wanted[1][:12]}, "
                f"got plan {state['plan']} and text {state['corpus'][:12]}"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = int(state["step"])
        self.log = list(state["log"])
