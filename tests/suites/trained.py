"""Small training runs of both routes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from msa_suites.models.architecture import ModelShape, build_model
from msa_suites.models.text import Corpus
from msa_suites.models.train import Trainer
from msa_suites.models.training_plan import IndexPlan, plan_route

TEXT = np.frombuffer(b"some plain text to read; " * 4000, dtype=np.uint8)
CORPUS = Corpus(TEXT, TEXT, "0" * 64)
INDEX = IndexPlan(warmup=3, index_dim=8, rotary_dim=4, topk=2, block=8)
SMALL = {
    "shape": ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, intermediate=64),
    "curriculum": ((64, 2, 3), (96, 1, 4)),
    "index": INDEX,
    "warmup_steps": 1,
}
PT = replace(plan_route("pt"), **SMALL)
CPT = replace(plan_route("cpt", start="a" * 64, plain_start=None), **SMALL)


def start():
    torch.manual_seed(5)
    return build_model(PT.shape, plain_start=False).eval().requires_grad_(False)


def trainer(plan):
    dense = start() if plan.start else None
    return Trainer(plan, corpus=CORPUS, device="cpu", start=dense)


def train(plan, until=None):
    made, seen = trainer(plan), []
    for progress in made.run():
        seen.append(progress)
        if progress.step == until:
            break
    return made, seen


def state(made):
    return {name: x.clone() for name, x in made.model.state_dict().items()}
