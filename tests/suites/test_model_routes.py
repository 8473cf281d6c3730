"""Training of the index branch: phases, plans, checkpoints, what is saved and loaded again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from msa import fast
from msa.retrofit_index import index_state
from msa_suites.models.attention import (
    MsaSettings,
    settings_for,
    trained_settings,
    use_dense,
    use_msa,
)
from msa_suites.models.index import FILE, save_with_index
from msa_suites.models.loading import ModelError, load_model
from msa_suites.models.ship import ship
from msa_suites.models.train import Trainer, TrainingError
from msa_suites.models.training_plan import CONTINUED, CURRICULUM, completed, plan_route

from .trained import CORPUS, CPT, INDEX, PT, start, state, train, trainer


@pytest.mark.parametrize("plan", [PT, CPT], ids=["pt", "cpt"])
def test_warmup_then_sparse_and_the_branch_learns(plan):
    _, seen = train(plan)
    assert [p.phase for p in seen] == ["warmup"] * 3 + ["sparse"] * 4
    assert all(p.index_kl > 0 for p in seen)
    assert seen[2].index_kl < seen[0].index_kl


@pytest.mark.parametrize("stop", [2, 3, 5])
@pytest.mark.parametrize("plan", [PT, CPT], ids=["pt", "cpt"])
def test_a_killed_run_resumes_to_the_same_result(plan, stop, tmp_path):
    whole, _ = train(plan)
    stopped, _ = train(plan, until=stop)
    stopped.save(tmp_path / "c")
    resumed = trainer(plan)
    resumed.load(tmp_path / "c")
    assert resumed.step == stop
    for _ in resumed.run():
        pass
    assert resumed.log == whole.log
    for name, x in state(whole).items():
        assert torch.equal(state(resumed)[name], x), name


def test_the_loss_of_the_branch_does_not_move_the_model():
    """The same text steps with and without a loss on the branch: the same model in warm-up."""
    plan = replace(CPT, index=replace(INDEX, warmup=7))
    with_loss, _ = train(plan)
    without, _ = train(replace(plan, index=replace(plan.index, coefficient=0.0)))
    one, other = state(with_loss), state(without)
    moved = [name for name in one if not torch.equal(one[name], other[name])]
    assert moved
    assert all(".indexer." in name for name in moved)
    loose, _ = train(replace(plan, index=replace(plan.index, detach=False)))
    assert not torch.equal(state(loose)["model.norm.weight"], one["model.norm.weight"])


class Noting:
    """The fast path, which notes the k of every selection."""

    def __init__(self):
        self.seen = []

    def __getattr__(self, name):
        return getattr(fast, name)

    def select_blocks(self, *args, topk, **named):
        self.seen.append(topk)
        return fast.select_blocks(*args, topk=topk, **named)


def test_sparse_steps_keep_the_k_whose_turn_it_is(tmp_path):
    plan, noting = replace(CPT, index=replace(INDEX, also_topk=(5,))), Noting()
    made = Trainer(plan, corpus=CORPUS, device="cpu", start=start(), operations=noting)
    for _ in made.run():
        pass
    assert noting.seen == [5, 5, 2, 2, 5, 5, 2, 2]  # two layers; the first three steps warm up
    ship(made, tmp_path / "m", command="", contexts=1, lengths=[512])
    assert "then 2 and in turn 5 blocks of 8" in (tmp_path / "m" / "README.md").read_text()
    model, _ = load_model(str(tmp_path / "m"))
    assert settings_for(model, {}).topk == 2
    assert not any(name.startswith("msa_") for name in vars(model.config))


def test_what_is_shipped_is_what_was_trained(tmp_path):
    from transformers import AutoModelForCausalLM

    made, _ = train(CPT)
    trained = state(made)
    ship(made, tmp_path / "m", command="msa-bench train", contexts=1, lengths=[512])
    model, _ = load_model(str(tmp_path / "m"))
    for name, x in trained.items():
        assert torch.equal(model.state_dict()[name], x), name
    assert not any(p.requires_grad for p in model.parameters())

    # By itself the branch is asked, in the MSA that it was trained in.
    settings = settings_for(model, {})
    assert settings == MsaSettings(scorer="index", topk=2, block=8, sink_blocks=0)
    assert settings_for(model, {"scorer": "max", "topk": 3}) == MsaSettings(
        scorer="max", topk=3, block=8, sink_blocks=0
    )
    ids = torch.randint(1, 256, (1, 90))
    with torch.no_grad():
        dense = model(ids, use_cache=False).logits
        use_msa(model, settings)
        sparse = model(ids, use_cache=False).logits
        use_dense(model)
    assert not torch.allclose(sparse, dense)

    # transformers alone has the dense model, without a word about unknown weights.
    alone, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "m", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values())
    with torch.no_grad():
        assert torch.equal(alone.eval()(ids, use_cache=False).logits, dense)

    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert record["attention"] == "msa"
    assert record["plan"]["route"] == "cpt"
    assert record["log"][-1]["phase"] == "sparse"
    card = (tmp_path / "m" / "README.md").read_text()
    assert "first 3 had full attention; then 2 blocks of 8 tokens" in card
    assert "a" * 64 in card
    # Nobody knows here how those weights began.
    assert "their card says how they began" in card
    assert "CONSTRUCTED" not in card
    assert FILE in (tmp_path / "m" / "SHA256SUMS").read_text()


def test_a_saved_branch_that_does_not_fit(tmp_path):
    made, _ = train(PT)
    ship(made, tmp_path / "m", command="", contexts=1, lengths=[512])
    whole = (tmp_path / "m" / FILE).read_bytes()
    (tmp_path / "whole").write_bytes(whole)
    (tmp_path / "m" / FILE).write_bytes(whole[:100])
    with pytest.raises(ModelError, match=r"index branch .*wanted the weights"):
        load_model(str(tmp_path / "m"))
    broken = {name: x * torch.nan for name, x in load_file(tmp_path / "whole").items()}
    for weights in (broken, {}):
        save_file(weights, tmp_path / "m" / FILE)
        with pytest.raises(ModelError, match="wanted finite weights, got none or others"):
            load_model(str(tmp_path / "m"))
    (tmp_path / "m" / FILE).unlink()
    with pytest.raises(ModelError, match=FILE):
        load_model(str(tmp_path / "m"))
    (tmp_path / "m" / FILE).write_bytes(whole)
    config = tmp_path / "m" / "config.json"
    config.write_text(config.read_text().replace('"index_dim": 8', '"index_dim": 16'))
    with pytest.raises(ModelError, match=r"k_norm.weight: wanted \[16\], got \[8\]"):
        load_model(str(tmp_path / "m"))
    config.write_text(config.read_text().replace('"topk": 2', '"topk": 0'))
    with pytest.raises(ModelError, match="topk: wanted an int above 0"):
        load_model(str(tmp_path / "m"))


def test_a_model_without_a_branch_is_saved_as_ever(tmp_path):
    model = start()
    save_with_index(model, tmp_path)
    assert not (tmp_path / FILE).exists()
    assert index_state(model) == {}
    assert trained_settings(model) == {}


def test_a_loss_that_is_no_number_stops_with_the_step():
    made = trainer(replace(PT, index=replace(INDEX, lr=float("inf"))))
    with pytest.raises(TrainingError, match=r"step 1: wanted a finite loss, got nan"):
        for _ in made.run():
            pass


def test_a_gradient_that_is_no_number_is_never_saved():
    made = trainer(CPT)
    weight = made.model.model.layers[1].self_attn.q_proj.weight
    before = weight.detach().clone()
    weight.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(TrainingError, match=r"step 0: wanted finite gradients, got norms \[nan"):
        next(made.run())
    assert torch.equal(weight, before)


def test_checkpoints_that_are_not_of_this_run(tmp_path):
    made, _ = train(PT, until=1)
    made.save(tmp_path / "c")
    with pytest.raises(
        ValueError, match=r"wanted one of this run, got .*route 'pt' where 'cpt' is"
    ):
        trainer(CPT).load(tmp_path / "c")
    other = replace(PT, index=replace(INDEX, coefficient=2.0))
    with pytest.raises(ValueError, match=r"index\.coefficient 1.0 where .* is wanted"):
        trainer(other).load(tmp_path / "c")
    changed = Trainer(PT, corpus=replace(CORPUS, sha256="1" * 64), device="cpu")
    with pytest.raises(ValueError, match="one of the text 111111111111, got one of 000000000000"):
        changed.load(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="wanted one of a training run, got"):
        trainer(PT).load(tmp_path / "c")
    torch.save({"something": 1}, tmp_path / "c")
    with pytest.raises(ValueError, match="wanted one of a training run, got KeyError"):
        trainer(PT).load(tmp_path / "c")


class TestPlans:
    def test_tokens(self):
        """PT reads as many tokens of every length as dense and CPT together."""
        assert plan_route("dense").curriculum == CURRICULUM
        together = plan_route("dense").tokens + plan_route("cpt", start="x").tokens
        assert plan_route("pt").tokens == together
        assert plan_route("dense", start="x").curriculum == CONTINUED
        assert plan_route("dense", start="x").tokens == plan_route("cpt", start="x").tokens

    def test_phases(self):
        plan = plan_route("pt")
        assert [plan.phase_at(s) for s in (0, 399, 400)] == ["warmup", "warmup", "sparse"]
        assert plan_route("dense").phase_at(0) == "dense"

    def test_several_k_take_turns(self):
        assert [CPT.topk_at(s) for s in (0, 1)] == [2, 2]
        several = replace(CPT, index=replace(INDEX, also_topk=(5, 9)))
        assert [several.topk_at(s) for s in range(4)] == [2, 5, 9, 2]
        assert plan_route("dense").topk_at(0) == 0
        assert [plan_route("pt").topk_at(s) for s in (0, 1)] == [4, 4]
        assert [plan_route("cpt", start="x").topk_at(s) for s in (0, 1)] == [4, 16]

    def test_a_log_that_knew_fewer_settings_had_their_defaults(self):
        plan = json.loads(plan_route("pt").as_json())
        old = {name: value for name, value in plan.items() if name != "start"}
        old["index"] = {n: value for n, value in plan["index"].items() if n != "also_topk"}
        assert completed(old) == plan
        assert completed({**old, "seed": 1}) != plan
        assert completed({**old, "index": {**old["index"], "topk": 5}}) != plan
        assert completed({**old, "index": {**old["index"], "also_topk": [16]}}) != plan
        assert completed({**old, "index": None}) == {**plan, "index": None}

    def test_routes_that_cannot_be(self):
        with pytest.raises(ValueError, match="route: wanted one of dense, pt, cpt, got 'ct'"):
            plan_route("ct")
        with pytest.raises(ValueError, match="route cpt: wanted a model to go on from, got none"):
            plan_route("cpt")
        with pytest.raises(ValueError, match="plain_start: wanted True or False"):
            plan_route("dense", plain_start=None)
        with pytest.raises(ValueError, match="route pt: wanted none to go on from"):
            plan_route("pt", start="x")

    def test_a_start_and_its_plan(self):
        with pytest.raises(ValueError, match="start: wanted a model for this plan, got none"):
            Trainer(CPT, corpus=CORPUS, device="cpu")
        with pytest.raises(ValueError, match="start: wanted none for this plan, got one"):
            Trainer(PT, corpus=CORPUS, device="cpu", start=start())
