"""Small models, plans and text that the tests of the ablations share."""

from __future__ import annotations

import numpy as np
import torch

from msa.retrofit import RetrofitSettings
from msa.retrofit_index import IndexShape, attach_index
from msa_suites.models.architecture import ModelShape, build_model
from msa_suites.models.text import Corpus
from msa_suites.reproduction.ablations_plan import (
    EXPERIMENTS,
    Sizes,
    plan_of,
)
from msa_suites.reproduction.ablations_runs import Start

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, intermediate=64)
TEXT = np.frombuffer(b"some plain text to read; " * 4000, dtype=np.uint8)
CORPUS = Corpus(TEXT, TEXT, "0" * 64)
SIZES = Sizes(
    curriculum=((160, 1, 2),), warmup=1, rise=1, seeds=1, length=256, sequences=2, recorded=1
)
NAMED = {one.name: one for one in EXPERIMENTS}
SETTINGS = RetrofitSettings(block=4, topk=3, sink_blocks=0, scorer="index")


def network():
    torch.manual_seed(5)
    made = build_model(SHAPE, plain_start=False).eval()
    for parameter in made.parameters():
        # Outputs start at zero; attention must matter to what follows.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return made.requires_grad_(False)


def indexed():
    made = network().requires_grad_(True)
    attach_index(made, IndexShape(index_dim=8, rotary_dim=4, theta=1e4), range(2))
    return made


def tokens(length=40):
    return torch.randint(1, 256, (1, length), generator=torch.Generator().manual_seed(3))


def start(model=None):
    return Start(model=model or network(), about={"seed": 0}, sha256="a" * 64, corpus=CORPUS)


def plan(name, sizes=SIZES):
    return plan_of(NAMED[name], sizes, seed=0, start="a" * 64, theta=1e4)
