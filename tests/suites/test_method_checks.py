"""The retrofit's checks see what a comparison of the retrofit with itself cannot."""

import importlib
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from method_worker import Local

import msa.scorers
from msa import fast, reference
from msa_suites.method import (
    checks,
    checks_config,
    checks_operations,
    checks_settings,
    oracle_model,
    oracle_scorers,
)
from msa_suites.method.subject import Retrofitted

ROW = list(b"the quick brown fox jumps over the lazy dog. " * 3)


class InProcess:
    """Answers as a worker does, with settings that the retrofit does not honour."""

    def __init__(self, **wrong):
        self.retrofitted, self.wrong = Retrofitted(fast), wrong

    def call(self, _handle, operation, args, kwargs, **_how):
        settings = {**kwargs["settings"], **self.wrong}
        return getattr(self.retrofitted, operation)(*args, **{**kwargs, "settings": settings})


def test_right_settings_pass():
    assert checks.check_retrofit(InProcess()) == ""


@pytest.mark.parametrize(
    "wrong", [{"topk": 3}, {"sink_blocks": 0}, {"block": 16}, {"scorer": "mean"}], ids=str
)
def test_settings_that_are_not_honoured_are_seen(wrong):
    worker = InProcess(**wrong)
    assert "positions differ" in checks.check_retrofit(worker)
    assert checks.check_padding(worker) == ""


def test_the_oracle_with_all_blocks_is_the_models_own_attention():
    dense = Retrofitted(fast).logits([ROW], settings=None)[0].double()
    (kept,) = oracle_model.logits([ROW], block=16, topk=64, sink_blocks=0)
    (dropped,) = oracle_model.logits([ROW], block=16, topk=2, sink_blocks=0)
    torch.testing.assert_close(kept, dense, rtol=0, atol=1e-3)
    assert (dropped[:32] - kept[:32]).abs().max() < 1e-9
    assert (dropped[32:] - kept[32:]).abs().max() > 0.1


AROUND = {
    "scorers": checks_settings.check_scorers,
    "config": checks_config.check_config,
    "reference": checks_operations.check_reference,
    "corners": checks_operations.check_corners,
    "refusals": checks.check_refusals,
    "cost": checks_settings.check_cost,
    "windows": checks_settings.check_windows,
    "unscaled": checks_settings.check_unscaled,
}


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_a_layer_is_right(name):
    assert AROUND[name](Local()) == ""


def test_every_scorer_has_a_definition_to_be_compared_with():
    assert set(oracle_scorers.RULES) | {"random"} == set(msa.scorers.SCORERS)


def test_a_specification_that_is_another_is_seen():
    worker = Local()

    def load(handle, target):
        assert target == "msa.reference"
        other = SimpleNamespace(**vars(reference))
        other.block_scores = lambda *given, **named: reference.block_scores(*given, **named) * 1.01
        worker.loaded[handle] = other

    worker.load = load
    assert checks_operations.check_reference(worker).startswith("scores on chunk-inside-block: ")


def largest_only(keys, block):
    most = keys.view(-1, block, *keys.shape[1:]).cummax(1).values
    return torch.cat([most, -most], -1)


def packed(x):
    """As a kernel reads channels that it believes to follow each other."""
    return x.as_strided(x.shape, (*x.stride()[:-1], 1))


@pytest.mark.parametrize(
    ("name", "where", "make", "text"),
    [
        ("scorers", "msa.scorers.tiles.TILE_BYTES", lambda _: 1, ""),
        ("scorers", "msa.scorers.max.hide_future_tokens", lambda _: lambda x, _tile: x, "max: "),
        (
            "scorers",
            "msa.scorers.mean._running_mean",
            lambda right: lambda keys, block: right(keys, block) * 1.001,
            "mean: sequence 0: relative error",
        ),
        (
            "scorers",
            "msa.scorers.recent.hide_future_blocks",
            lambda _: lambda scores, *_rest: scores,
            "recent: sequence 0: wanted -inf where no token is visible",
        ),
        (
            "scorers",
            "msa.scorers.infllm_v2._best",
            lambda _: lambda mass, _share: mass.sum(-1),
            "infllm_v2: sequence 0: relative error",
        ),
        (
            "scorers",
            "msa.scorers.nsa_standin._shared_out",
            lambda _: lambda mass, share: (mass * (share > 0)).sum(-1),
            "nsa_standin: sequence 0: relative error",
        ),
        (
            "scorers",
            "msa.scorers.dsa_standin.hide_future_tokens",
            lambda _: lambda x, _tile: x,
            "dsa_standin: ",
        ),
        ("scorers", "msa.scorers.random._mixed", lambda _: lambda x: x, "random: wanted even"),
        (
            "scorers",
            "msa.scorers.random._mixed",
            lambda right: lambda x: right(x * 0 + 7) if x.dim() < 2 else right(x),
            "random: wanted other scores for another seed",
        ),
        (
            "cost",
            "msa.cost.attended_pairs",
            lambda right: lambda *a, **k: right(*a, **k) + 1,
            "1 tokens: exact_msa_flops",
        ),
        (
            "config",
            "msa.retrofit_settings.RetrofitSettings",
            lambda right: partial(right, topk=8),
            "msa.retrofit_settings:RetrofitSettings: topk: wanted 16, got 8",
        ),
        (
            "refusals",
            "msa.checks.require_budget",
            lambda right: lambda topk, *forced: right(topk - 1, *forced),
            "2 calls: attend with a budget of forced blocks: raised ValueError",
        ),
        (
            "corners",
            "msa.fast.small.working_dtype",
            lambda _: lambda _x: torch.float32,
            "chunk-inside-block with float64: relative error",
        ),
        (
            "corners",
            "msa.fast.gathered.flash",
            lambda right: lambda q, k, v, scale: right(packed(q), packed(k), packed(v), scale),
            "chunk-inside-block with strided channels: relative error",
        ),
        (
            "unscaled",
            "msa.retrofit.attention",
            lambda right: lambda *a, **k: right(*a, **{**k, "scaling": k["scaling"] or 0.3}),
            "no scale given: logits differ",
        ),
        ("refusals", "msa.checks.require_scale", lambda _: lambda *_: None, "7 calls: "),
        ("refusals", "msa.checks.require_positive", lambda _: lambda *_: None, "11 calls: "),
        ("cost", "msa.cost.equation_12", lambda _: lambda *_shape: (1.0, 1.0), "paper: ratio"),
        (
            "windows",
            "msa.retrofit_attention.has_own_mask",
            lambda right: lambda config, layer, window: layer != 0 and right(config, layer, window),
            None,
        ),
    ],
)
def test_what_is_wrong_around_a_layer_is_seen(monkeypatch, name, where, make, text):
    module, _, attribute = where.rpartition(".")
    owner = importlib.import_module(module)
    monkeypatch.setattr(owner, attribute, make(getattr(owner, attribute)))
    if text is None:  # a retrofit that cannot be: the worker's error is the check's failure
        with pytest.raises(ValueError, match="attention_mask"):
            AROUND[name](Local())
        return
    problem = AROUND[name](Local())
    assert problem.startswith(text)
    assert bool(problem) is bool(text)


@pytest.mark.parametrize(
    "wrong", [{"dense_layers": ()}, {"scorer": "max"}, {"local_blocks": 1, "scorer": "mean"}]
)
def test_settings_of_the_retrofit_that_are_not_honoured_are_seen(wrong):
    assert "differ" in checks_settings.check_retrofit_settings(InProcess(**wrong))
