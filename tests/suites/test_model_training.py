from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from msa_suites.models.architecture import ModelShape, build_model
from msa_suites.models.ship import ship
from msa_suites.models.text import Corpus
from msa_suites.models.train import Trainer
from msa_suites.models.training_plan import TrainingPlan

TEXT = np.frombuffer(b"some plain text to read; " * 4000, dtype=np.uint8)
CORPUS = Corpus(TEXT, TEXT, "0" * 64)
PLAN = TrainingPlan(
    shape=ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, intermediate=64),
    curriculum=((64, 2, 3), (128, 1, 3)),
)


def train(plan=PLAN, until=None):
    trainer = Trainer(plan, corpus=CORPUS, device="cpu")
    for progress in trainer.run():
        if progress.step == until:
            break
    return trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_same_seed_same_model_and_another_seed_another():
    assert torch.equal(weights(train()), weights(train()))
    other = TrainingPlan(shape=PLAN.shape, curriculum=PLAN.curriculum, seed=1)
    assert not torch.equal(weights(train()), weights(train(other)))


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    stopped = train(until=4)
    stopped.save(tmp_path / "c")
    resumed = Trainer(PLAN, corpus=CORPUS, device="cpu")
    resumed.load(tmp_path / "c")
    assert resumed.step == 4
    for _ in resumed.run():
        pass
    assert torch.equal(weights(resumed), weights(train()))


def test_a_checkpoint_of_another_plan_is_refused(tmp_path):
    train(until=1).save(tmp_path / "c")
    other = Trainer(
        TrainingPlan(shape=PLAN.shape, curriculum=PLAN.curriculum, seed=7),
        corpus=CORPUS,
        device="cpu",
    )
    with pytest.raises(ValueError, match="seed 0 where 7 is wanted"):
        other.load(tmp_path / "c")


def test_the_constructed_start_looks_back_by_head():
    shape = ModelShape()
    model = build_model(shape, plain_start=False)
    model.set_attn_implementation("eager")
    tokens = torch.randint(256, (1, 300))
    with torch.no_grad():
        attention = model(tokens, output_attentions=True).attentions[0]  # [1, H, T, T]
    for head in range(shape.heads):
        diagonal = torch.diagonal(attention[0, head], offset=-(head + 1))
        assert diagonal[10:].mean() > 0.8
    plain = build_model(shape, plain_start=True)
    assert not plain.model.layers[0].self_attn.q_proj.bias.any()


def test_shipping_writes_a_loadable_directory(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trainer = train()
    rows = ship(trainer, tmp_path / "m", command="msa-bench train", contexts=1, lengths=[512])
    assert [row.length for row in rows] == [512]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    loaded = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(loaded, weights(trainer))
    assert AutoTokenizer.from_pretrained(tmp_path / "m")("@a").input_ids == [64, 97]
    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert record["text_sha256"] == CORPUS.sha256
    assert record["log"][-1]["step"] == PLAN.steps
    assert "CONSTRUCTED" in (tmp_path / "m" / "README.md").read_text()


def test_an_unfinished_run_is_not_shipped(tmp_path):
    with pytest.raises(ValueError, match="wanted 6 steps, got 2"):
        ship(train(until=2), tmp_path / "m", command="", contexts=1)
