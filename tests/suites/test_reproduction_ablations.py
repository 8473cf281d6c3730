"""Runs of the ablations: what they freeze, keep, take over and read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ablated import (
    CORPUS,
    NAMED,
    SETTINGS,
    SIZES,
    indexed,
    network,
    plan,
    start,
)

from msa.retrofit_index import index_branches
from msa_suites.models.train import Trainer, TrainingError
from msa_suites.reproduction import ablations, ablations_runs, relatives
from msa_suites.reproduction.ablations_plan import (
    BASE,
    FROZEN,
    readings,
)
from msa_suites.reproduction.ablations_reading import count_answers, held_out, read
from msa_suites.reproduction.ablations_runs import FOLDER, dense_copy, run
from msa_suites.reproduction.ablations_switches import PlainTopk, ValueHeads, loose_loss
from msa_suites.reproduction.setup import CannotRun, Setup

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_model_stays_bit_for_bit(frozen):
    chosen = plan("dim_16" if frozen else BASE)
    assert [chosen.phase_at(step) for step in (0, 1)] == [
        "warmup", "warmup" if frozen else "sparse"
    ]  # fmt: skip
    model = network()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    trainer = Trainer(chosen, corpus=CORPUS, device="cpu", start=model)
    first = {name: x.clone() for name, x in model.state_dict().items() if name not in before}
    seen = list(trainer.run())
    assert all(one.grad_norm > 0 for one in seen)
    same = [torch.equal(x, model.state_dict()[name]) for name, x in before.items()]
    assert all(same) if frozen else not any(same)
    assert not any(torch.equal(x, model.state_dict()[name]) for name, x in first.items())


@pytest.mark.parametrize("name", ["no_detach", "no_local", "value_head"])
def test_a_run_is_what_its_experiment_says(name, tmp_path, monkeypatch):
    made = []

    class Watched(Trainer):
        def __init__(self, *args, **given):
            super().__init__(*args, **given)
            made.append((self, given["operations"]))

    monkeypatch.setattr(ablations_runs, "Trainer", Watched)
    found = run(Setup(out=tmp_path), start(), NAMED[name], SIZES, seed=0)
    ((trainer, operations),) = made
    alignment = trainer.index.alignment
    assert (alignment.measure is loose_loss) is (not alignment.detach) is (name == "no_detach")
    assert isinstance(operations, PlainTopk) is (name == "no_local")
    assert isinstance(operations, ValueHeads) is (name == "value_head")
    assert any("index_value" in n for n, _ in trainer.model.named_parameters()) is (
        name == "value_head"
    )
    assert len(found["steps"]["grad_norm"]) == 2
    assert set(found["measured"]) == set(readings(NAMED[name]))


def test_only_an_equal_plan_is_taken_over(tmp_path, monkeypatch):
    setup, given = Setup(out=tmp_path), start()
    first = run(setup, given, NAMED[FROZEN], SIZES, seed=0)
    file = tmp_path / FOLDER / f"{FROZEN}-0.json"
    kept = file.read_bytes()

    def again(*_):
        return {"steps": {}, "diverged": 1, "measured": {}}

    monkeypatch.setattr(ablations_runs, "_train_and_read", again)
    assert run(setup, given, NAMED[FROZEN], SIZES, seed=0) == json.loads(json.dumps(first))
    assert file.read_bytes() == kept
    others = [
        (given, NAMED[FROZEN], replace(SIZES, warmup=2)),
        (given, replace(NAMED[FROZEN], index={"index_dim": 8}), SIZES),
        (replace(given, about={"seed": 1}), NAMED[FROZEN], SIZES),
        (replace(given, sha256="b" * 64), NAMED[FROZEN], SIZES),
        (replace(given, corpus=replace(CORPUS, sha256="1" * 64)), NAMED[FROZEN], SIZES),
    ]
    for changed in others:
        file.write_bytes(kept)
        assert run(setup, *changed, seed=0)["diverged"] == 1
    for broken in (b"{", b"[]", b'{"schema": "other/1"}'):
        file.write_bytes(broken)
        assert run(setup, given, NAMED[FROZEN], SIZES, seed=0)["diverged"] == 1


def test_a_run_that_diverges_is_kept_as_such(tmp_path, monkeypatch):
    def breaks(_):
        yield from ()
        raise TrainingError("no number")

    monkeypatch.setattr(Trainer, "run", breaks)
    found = run(Setup(out=tmp_path), start(), NAMED[BASE], SIZES, seed=0)
    assert (found["diverged"], found["measured"]) == (0, {})


def test_a_copy_has_no_index_branch_and_the_model_keeps_its_own():
    model = indexed()
    model.config.index_branch = {"shape": {}}
    made = dense_copy(model)
    assert index_branches(made) == {}
    assert not hasattr(made.config, "index_branch")
    assert len(index_branches(model)) == 2
    assert model.config.index_branch == {"shape": {}}
    assert dense_copy(network()).config is not model.config


def test_answers_are_right_as_a_whole():
    kind = np.array([1, 2, 2, 1, 0, 2, 1, 2, 2], np.uint8)
    hit = np.array([0, 1, 1, 0, 0, 1, 0, 1, 0], bool)
    assert count_answers(hit, kind) == (2, 3)
    assert count_answers(~hit, kind) == (0, 3)


def test_reading_is_the_same_for_all_and_keeps_count():
    texts = held_out(CORPUS, length=256, count=2, seed=0)
    again = held_out(CORPUS, length=256, count=2, seed=0)
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(texts, again, strict=True))
    model = indexed().requires_grad_(False)
    every = replace(SETTINGS, topk=64)
    given = {"operations": "msa.fast", "recorded": 1}
    dense, kept = read(model, texts, None, **given), read(model, texts, every, **given)
    assert kept["text_nll"] == pytest.approx(dense["text_nll"], rel=1e-5)
    assert kept["mass"] == pytest.approx(1.0, abs=1e-5)
    assert kept["blocks"] is None  # nothing to choose
    best = read(model, texts, replace(SETTINGS, scorer="oracle"), **given)
    assert read(model, texts, SETTINGS, **given)["mass"] < best["mass"] < 1
    assert dense["answers"]["n"] > 0


def test_a_model_of_other_tokens_cannot_run(tmp_path, monkeypatch):
    other = network()
    other.config.vocab_size = 1000
    monkeypatch.setattr(ablations, "load", lambda _: (other, None))
    with pytest.raises(CannotRun, match="Qwen2 with 256 tokens; got qwen2 with 1000"):
        ablations.measure(Setup(out=tmp_path))


def test_relatives_get_equal_budgets(tiny_model_dir, tmp_path):
    said = []
    setup = Setup(out=tmp_path, model=str(tiny_model_dir), quick=True, say=said.append)
    found = relatives.measure(setup)
    assert {row["tokens"] for row in found["rows"]} == {128}
    assert [rule["name"] for rule in found["rules"]] == ["msa", "moba"]
    assert found["dense"]["change"]["value"] == 0
    assert [row["name"] for row in found["rows"]] == ["msa", "moba"]
    # Rules have blocks of their own: a budget of MoBA's is fewer of them.
    assert [row["topk"] for row in found["rows"]] == [4, 2]
    assert len(said) == 2
