"""A trained index branch of a model: how it is trained, kept beside the model, and found again.

A model directory with an index branch is an ordinary one, which transformers loads as the dense
model, with two things more: ``index_branch.safetensors``, and ``index_branch`` in ``config.json``,
which has the branch's sizes and the MSA that it was trained in.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from msa_suites.models.attention import INDEX_ENTRY, Network

if TYPE_CHECKING:
    from msa.operations import Operations
    from msa_suites.models.training_plan import IndexPlan

FILE = "index_branch.safetensors"
#: The implementation that trains an index branch where no other is asked for.
OPERATIONS = "msa.fast"


class IndexTraining:
    """The index branches of a model in training, and the retrofit through which they learn.

    Args:
        model: receives fresh index branches in every layer.
        plan: their sizes and rates.
        theta: base of the model's rotation.
        operations: the implementation through which they learn.
    """

    def __init__(
        self,
        model: Network,
        plan: IndexPlan,
        *,
        theta: float,
        operations: Operations | str = OPERATIONS,
    ) -> None:
        from msa.alignment import Alignment
        from msa.retrofit import apply_retrofit
        from msa.retrofit_index import IndexShape, attach_index, index_branches
        from msa.retrofit_settings import RetrofitSettings

        shape = IndexShape(index_dim=plan.index_dim, rotary_dim=plan.rotary_dim, theta=theta)
        layers = range(model.config.num_hidden_layers)
        attach_index(model, shape, layers)
        self.model, self.plan = model, plan
        self.alignment = Alignment(coefficient=plan.coefficient, detach=plan.detach)
        self.parameters = [p for b in index_branches(model).values() for p in b.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=plan.lr, weight_decay=0.0, betas=(0.9, 0.95)
        )
        described = {"shape": asdict(shape), "settings": settings_of(plan)}
        setattr(model.config, INDEX_ENTRY, described)
        settings = RetrofitSettings(scorer="index", **settings_of(plan))
        apply_retrofit(model, settings, operations=operations, alignment=self.alignment)

    def enter(self, phase: str, topk: int) -> None:
        """Let the next forward pass be one of ``warmup``, or ``sparse`` with ``topk`` blocks."""
        self.alignment.phase = phase
        self.model.config.msa_topk = topk
        self.alignment.losses.clear()

    def mean_loss(self) -> float:
        """Loss of the last forward pass in nats, the mean over the layers."""
        return float(torch.stack([*self.alignment.losses.values()]).detach().mean())

    def leave(self) -> None:
        """Give the model its own attention back; the index branches stay in it."""
        from msa.retrofit import remove_retrofit

        remove_retrofit(self.model)


def settings_of(plan: IndexPlan) -> dict[str, Any]:
    """The MSA that the index branch is trained in, at the first of several k."""
    names = ("topk", "block", "sink_blocks", "local_blocks")
    return {name: getattr(plan, name) for name in names}


def save_with_index(model: Network, directory: Path) -> None:
    """Write ``model`` into ``directory``, its index branches beside the rest of the weights."""
    from safetensors.torch import save_file

    from msa.retrofit_index import index_state

    index = {name: x.detach().contiguous() for name, x in index_state(model).items()}
    rest = {name: x for name, x in model.state_dict().items() if name not in index}
    model.save_pretrained(directory, state_dict=rest)
    if index:
        save_file(index, directory / FILE)


def attach_saved(model: Network, file: Path) -> None:
    """Give a loaded model the index branches in ``file``, which its configuration describes.

    Raises:
        ValueError: the file is missing or broken, or does not fit the configuration.
    """
    from safetensors.torch import load_file

    from msa.retrofit_index import IndexShape, attach_index, load_index
    from msa.retrofit_settings import RetrofitSettings

    described = getattr(model.config, INDEX_ENTRY)
    try:
        shape = IndexShape(**described["shape"])
        RetrofitSettings(scorer="index", **described["settings"])
        weights: dict[str, Tensor] = load_file(file)
        if not weights or not all(bool(x.isfinite().all()) for x in weights.values()):
            raise ValueError("wanted finite weights, got none or others")
        layers = sorted({int(name.split(".")[2]) for name in weights})
        attach_index(model, shape, layers)
        load_index(model, weights)
    except Exception as error:  # of a broken file, safetensors raises whatever it meets
        raise ValueError(
            f"index branch {file}: wanted the weights that config.json describes as "
            f"{json.dumps(described)}, got {type(error).__name__}: {error}"
        ) from error
