"""Training of the embedded model: step-based, seeded, resumable, on whatever device there is.

The schedule counts steps, never seconds, so that a slower machine gives the same model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from msa_suites.models.architecture import build_model
from msa_suites.models.attention import Network
from msa_suites.models.index import OPERATIONS, IndexTraining
from msa_suites.models.rounding import RoundedProducts
from msa_suites.models.text import Corpus, load_corpus
from msa_suites.models.training_data import make_sequence
from msa_suites.models.training_loss import weighted_loss
from msa_suites.models.training_plan import TrainingPlan

if TYPE_CHECKING:
    from msa.operations import Operations

#: Steps that one line of the training log sums up.
LOG_EVERY = 50


class TrainingError(RuntimeError):
    """Training cannot go on: the loss is no number, or there is nothing to learn from."""


@dataclass(frozen=True)
class Progress:
    """What one step reports."""

    step: int
    steps: int
    length: int
    text_nll: float
    answer_nll: float
    answer_accuracy: float
    #: Mean over the layers of the index branches' loss, nats; None where none learns.
    index_kl: float | None
    phase: str
    #: Of the model's own parameters, before it is clipped; None in checkpoints without it.
    grad_norm: float | None = None


class Trainer:
    """A training run that can be stopped and resumed at any step.

    Args:
        plan: what to train.
        corpus: text to train on; None reads the standard library.
        device: a torch device.
        start: the model that a plan with ``start`` goes on from; it is trained in place.
        operations: the implementation through which an index branch learns.

    Raises:
        ValueError: the plan wants a start and there is none, or the other way round.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        *,
        corpus: Corpus | None,
        device: str,
        start: Network | None = None,
        operations: Operations | str = OPERATIONS,
    ) -> None:
        if bool(plan.start) != (start is not None):
            raise ValueError(
                f"start: wanted {'a model' if plan.start else 'none'} for this plan, "
                f"got {'none' if start is None else 'one'}"
            )
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.corpus = corpus or load_corpus()
        self.device = torch.device(device)
        if start is None:
            start = build_model(plan.shape, plain_start=plan.plain_start is True)
        self.model: Network = start.to(self.device)
        self.model.requires_grad_(True)
        self.model.train()
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            is_matrix = parameter.ndim == 2 and "embed" not in name
            (matrices if is_matrix else rest).append(parameter)
        self.own = [*matrices, *rest]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=plan.muon_lr, weight_decay=0.0),
            torch.optim.AdamW(rest, lr=plan.adam_lr, weight_decay=0.0, betas=(0.9, 0.95)),
        ]
        self.base_rates: tuple[float, ...] = (plan.muon_lr, plan.adam_lr)
        self.index: IndexTraining | None = None
        if plan.index is not None:
            self.index = IndexTraining(
                self.model, plan.index, theta=plan.shape.rope_theta, operations=operations
            )
            self.optimizers.append(self.index.optimizer)
            self.base_rates += (plan.index.lr,)
        self.step = 0
        #: Means over every ``LOG_EVERY`` steps.
        self.log: list[dict[str, float | str | None]] = []
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
        """Train from the current step to the end, yielding after every step.

        Raises:
            TrainingError: the loss is no finite number; the last checkpoint is as good as before.
        """
        while self.step < self.plan.steps:
            tokens, kind = self.batch(self.step)
            phase = self.plan.phase_at(self.step)
            for optimizer, rate in zip(self.optimizers, self.base_rates, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * self.plan.rate_at(self.step)
                optimizer.zero_grad(set_to_none=True)
            if self.index is not None:
                self.index.enter(phase, self.plan.topk_at(self.step))
            logits = self.model(tokens, use_cache=False).logits
            loss, text, answer, right = weighted_loss(logits, tokens, kind, self.plan.answer_weight)
            index_kl = None
            if self.index is not None:
                loss = loss + self.index.alignment.total()
                index_kl = self.index.mean_loss()
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"step {self.step}: wanted a finite loss, got {loss.item()} (text "
                    f"{text.item():.3f}, answers {answer.item():.3f}, index branch {index_kl})"
                )
            loss.backward()
            grad_norm = torch.nn.utils.clip_grad_norm_(self.own, 1.0)
            norms = [grad_norm]
            if self.index is not None:
                norms.append(torch.nn.utils.clip_grad_norm_(self.index.parameters, 1.0))
            if not all(math.isfinite(norm.item()) for norm in norms):
                raise TrainingError(
                    f"step {self.step}: wanted finite gradients, got norms "
                    f"{[norm.item() for norm in norms]}"
                )
            with RoundedProducts():
                for optimizer in self.optimizers:
                    optimizer.step()
            self.step += 1
            progress = Progress(
                step=self.step,
                steps=self.plan.steps,
                length=tokens.shape[1],
                text_nll=text.item(),
                answer_nll=answer.item(),
                answer_accuracy=right.item(),
                index_kl=index_kl,
                phase=phase,
                grad_norm=grad_norm.item(),
            )
            self._note(progress)
            yield progress

    def finish(self) -> Network:
        """The model, in evaluation mode and with the attention it came with."""
        if self.index is not None:
            self.index.leave()
        return self.model.eval()

    def _note(self, progress: Progress) -> None:
        self._since_log.append(progress)
        if len(self._since_log) < LOG_EVERY and progress.step < self.plan.steps:
            return
        line: dict[str, float | str | None] = {"step": progress.step, "length": progress.length}
        line["phase"] = progress.phase
        for name in ("text_nll", "answer_nll", "answer_accuracy", "index_kl"):
            values = [getattr(p, name) for p in self._since_log]
            known = [value for value in values if value is not None]
            line[name] = round(sum(known) / len(known), 4) if known else None
        self.log.append(line)
        self._since_log = []

    def save(self, path: Path) -> None:
        """Write a checkpoint; the file appears whole or not at all."""
        state = {
            "plan": self.plan.as_json(),
            "corpus": self.corpus.sha256,
            "step": self.step,
            "log": self.log,
            "since_log": [asdict(p) for p in self._since_log],
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same plan and text.

        Raises:
            ValueError: it is no whole checkpoint, or one of another plan or of other text.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            plan, corpus = str(state["plan"]), str(state["corpus"])
        except FileNotFoundError:
            raise
        except Exception as error:  # of a broken file, torch raises whatever it meets
            raise ValueError(
                f"checkpoint {path}: wanted one of a training run, got {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        if not self.plan.equals(plan):
            raise ValueError(
                f"checkpoint {path}: wanted one of this run, got {self.plan.differences(plan)}"
            )
        if corpus != self.corpus.sha256:
            raise ValueError(
                f"checkpoint {path}: wanted one of the text {self.corpus.sha256[:12]}, got one of "
                f"{corpus[:12]}"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = int(state["step"])
        self.log = list(state["log"])
        self._since_log = [Progress(**p) for p in state["since_log"]]
