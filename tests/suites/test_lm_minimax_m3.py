"""MiniMax-M3 as transformers has it, through the model class: its own MSA, no retrofit."""

from __future__ import annotations

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tiny_models import M3_BLOCK, M3_TOPK, save_family, save_m3
from transformers import AutoModelForCausalLM

from msa_suites.models.attention import MsaSettings, own_settings, use_dense, use_msa
from msa_suites.models.lm import MsaLM
from msa_suites.models.loading import load_model
from msa_suites.models.minimax_m3 import index_branches
from msa_suites.models.scoring import Request
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.lm_tasks import TASK_FILES

BUDGET = M3_BLOCK * M3_TOPK
TOKENS = torch.randint(1, 256, (1, 300), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_m3(tmp_path_factory.mktemp("m3"))


@pytest.fixture(scope="module")
def model(directory):
    return MsaLM(str(directory))


@torch.inference_mode()
def logits(network):
    return network(TOKENS, use_cache=False).logits[0]


def test_msa_is_the_model_as_it_is(model, directory):
    model.attend("msa")
    plain = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa").eval()
    assert torch.equal(logits(model.model), logits(plain))
    assert not hasattr(model.model.config, "msa_retrofit")
    assert model.settings.budget == BUDGET


def test_dense_is_full_attention_on_the_same_weights(model, directory):
    full = AutoModelForCausalLM.from_pretrained(
        directory, layer_types=["full_attention"] * 3, attn_implementation="sdpa"
    ).eval()
    assert not index_branches(full)
    model.attend("msa")
    sparse = logits(model.model)
    model.attend("dense")
    dense = logits(model.model)
    torch.testing.assert_close(dense, logits(full), rtol=1e-4, atol=1e-4)
    # A query below the budget sees every block either way.
    torch.testing.assert_close(dense[:BUDGET], sparse[:BUDGET], rtol=1e-4, atol=1e-4)
    assert (dense[BUDGET:] - sparse[BUDGET:]).abs().max() > 1e-2
    model.attend("msa")
    assert torch.equal(logits(model.model), sparse)


@pytest.mark.parametrize("attention", ["msa", "dense"])
def test_chunks_change_nothing(model, attention):
    model.attend(attention)
    requests = [(("", ""), TOKENS[0, :280].tolist(), TOKENS[0, 280:].tolist())]
    question = Instance("generate_until", {}, ("a b c " * 40, {"max_gen_toks": 6}), 0)
    likelihoods, texts = [], []
    for chunk in (0, 50, M3_BLOCK):
        model.chunk = chunk
        likelihoods.append(model._loglikelihood_tokens(requests)[0][0])
        texts.append(model.generate_until([question]))
    assert likelihoods == pytest.approx([likelihoods[0]] * 3, abs=1e-3)
    assert texts == [texts[0]] * 3


def test_a_released_checkpoint_with_eyes_loads(tmp_path):
    """transformers has no causal model of that type; its language part is the same."""
    model = MsaLM(str(save_m3(tmp_path / "sees", sees=True)))
    assert len(index_branches(model.model)) == 2
    assert model.max_length == 16384
    sparse = logits(model.model)
    model.attend("dense")
    assert (logits(model.model) - sparse)[BUDGET:].abs().max() > 1e-2


def test_the_budget_is_the_models_own(model):
    model.attend("msa")
    model.check_request(Request((1,) * BUDGET, (1, 1)))
    with pytest.raises(QualityInvalid, match=rf"= {BUDGET} tokens, got {BUDGET}"):
        model.check_request(Request((1,) * BUDGET, (1,)))


def test_its_own_settings_may_be_said(directory):
    said = {"topk": M3_TOPK, "block": M3_BLOCK, "sink_blocks": 0, "dense_layers": 0}
    model = MsaLM(str(directory), **said, scorer="index", implementation="transformers")
    assert model.settings == own_settings(model.model)
    assert model.settings.dense_layers == (0,)


@pytest.mark.parametrize(
    ("name", "value"),
    [("topk", 5), ("block", 64), ("scorer", "max"), ("implementation", "torch"), ("seed", 1)],
)
def test_settings_of_a_retrofit_are_refused(directory, model, name, value):
    words = f"{name}: wanted nothing or .* own sparse attention has, got {value!r}"
    with pytest.raises(ValueError, match=words):
        MsaLM(str(directory), **{name: value})
    own = own_settings(model.model).as_dict()
    with pytest.raises(ValueError, match=words):
        model.attend("dense", MsaSettings.from_mapping({**own, name: value}))
    with pytest.raises(ValueError, match=words):
        use_msa(model.model, MsaSettings.from_mapping({**own, name: value}))


def test_nothing_records_its_selections(model):
    with pytest.raises(ValueError, match="recorder: wanted none"):
        use_msa(model.model, own_settings(model.model), recorder=object())


def test_an_m3_without_sparse_layers_is_retrofitted(tmp_path):
    where = save_m3(tmp_path / "dense", layer_types=["full_attention"] * 3)
    network, _ = load_model(str(where))
    assert own_settings(network) is None
    before = logits(network)
    use_msa(network, MsaSettings(topk=2, block=32))
    assert (logits(network) - before).abs().max() > 1e-2
    use_dense(network)
    assert torch.equal(logits(network), before)


def test_another_model_has_none_of_its_own(tmp_path):
    assert own_settings(load_model(str(save_family("llama", tmp_path)))[0]) is None


def test_lm_eval_runs_a_task(directory):
    manager = TaskManager(
        include_path=str(TASK_FILES), include_defaults=False, metadata={"profile": "quick"}
    )
    found = {}
    for attention in ("msa", "dense"):
        done = simple_evaluate(
            model="msa",
            model_args={"pretrained": str(directory), "attention": attention, "chunk": 600},
            tasks=["msa_facts"],
            task_manager=manager,
            device="cpu",
            batch_size="auto",
            limit=2,
            bootstrap_iters=0,
        )
        found[attention] = done["results"]["msa_facts"]["nll,none"]
    assert found["msa"] > 0
    assert found["msa"] != found["dense"]
