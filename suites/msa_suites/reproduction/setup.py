"""What every section is given, and the model that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from msa_suites.models.attention import Network, use_dense


class CannotRun(RuntimeError):
    """A section has no way to run here; its text says why."""


def _silent(text: str) -> None:
    del text


@dataclass(frozen=True, slots=True)
class Setup:
    """How the sections of one document are measured.

    Attributes:
        out: folder of the document's data and plots.
        model: model directory or hub id; empty for the embedded model.
        seed: of everything drawn at random.
        device: ``cpu`` or ``cuda``.
        quick: small sizes, which show that the command works and reproduce nothing.
        say: is told what is going on.
    """

    out: Path
    model: str = ""
    seed: int = 0
    device: str = "cpu"
    quick: bool = False
    say: Callable[[str], None] = field(default=_silent, compare=False)


def load(setup: Setup) -> tuple[Network, Any]:
    """The model with its own dense attention, and its tokenizer; sections share one load."""
    model, tokenizer = _load(setup.model, setup.device)
    use_dense(model)
    return model, tokenizer


@lru_cache(maxsize=1)
def _load(name: str, device: str) -> tuple[Network, Any]:
    from msa_suites.models.loading import EMBEDDED, load_model
    from msa_suites.quality.evaluate import refuse_own

    model, tokenizer = load_model(name or str(EMBEDDED), device=device)
    refuse_own(model)
    return model, tokenizer
