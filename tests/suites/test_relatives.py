"""MSA's relatives: equal budgets, rules that are what they say, and the command that compares."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from msa.scorers import SCORERS
from msa_suites import cli
from msa_suites.models.attention import MsaSettings, use_dense, use_msa
from msa_suites.models.loading import load_model
from msa_suites.quality.relatives import BUDGETS, RULES, settings_of


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_every_rule_spends_the_whole_budget_and_no_more(rule, budget):
    settings = settings_of(rule, budget)
    assert settings.budget == budget
    assert settings.scorer in SCORERS
    assert settings.topk > settings.sink_blocks + settings.local_blocks


@pytest.mark.parametrize(
    ("name", "budget", "topk", "sink", "local"),
    [
        ("msa", 128, 4, 1, 1),
        ("moba", 128, 2, 0, 1),
        ("infllm_v2", 128, 8, 1, 2),
        ("infllm_v2", 512, 32, 1, 10),
        ("nsa_standin", 64, 4, 1, 2),
        ("nsa_standin", 512, 32, 1, 10),
        ("dsa_standin", 512, 512, 0, 1),
        ("quest", 130, 32, 0, 1),  # 2 tokens are no block
    ],
)
def test_how_a_budget_is_spent(name, budget, topk, sink, local):
    found = settings_of(RULES[name], budget)
    assert (found.topk, found.sink_blocks, found.local_blocks) == (topk, sink, local)


@pytest.mark.parametrize(
    ("name", "least"), [("msa", 96), ("moba", 128), ("infllm_v2", 48), ("nsa_standin", 64),
                        ("dsa_standin", 2), ("quest", 8)],
)  # fmt: skip
def test_a_budget_without_a_free_block_is_refused(name, least):
    settings_of(RULES[name], least)
    with pytest.raises(ValueError, match=f"budget_tokens: wanted at least {least} for {name} .* "):
        settings_of(RULES[name], least - 1)


def test_what_no_rule_says_is_taken_over():
    base = MsaSettings(seed=3, dense_layers=(0,), implementation="reference", topk=99, block=7)
    found = settings_of(RULES["moba"], 256, base=base)
    assert (found.seed, found.dense_layers, found.implementation) == (3, (0,), "reference")
    assert (found.scorer, found.block, found.topk) == ("mean", 64, 4)


def test_every_rule_says_what_is_faithful_and_what_is_not():
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.source.startswith("arXiv ")
        assert rule.faithful.endswith(".")
        assert rule.stand_in.endswith(".")


@torch.inference_mode()
def test_single_tokens_are_a_block_size_like_any_other(tiny_model_dir):
    """DSA's granularity: exact with all tokens kept, and as the specification with some."""
    model, _ = load_model(str(tiny_model_dir), device="cpu", dtype="float32")
    ids = torch.randint(1, 256, (1, 90), generator=torch.Generator().manual_seed(0))
    use_dense(model)
    dense = model(input_ids=ids).logits
    few = settings_of(RULES["dsa_standin"], 20)
    use_msa(model, replace(few, topk=90))
    torch.testing.assert_close(model(input_ids=ids).logits, dense)
    found = []
    for implementation in ("torch", "reference"):
        use_msa(model, replace(few, implementation=implementation))
        found.append(model(input_ids=ids).logits)
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)
    assert float((found[0] - dense).abs().max()) > 0.1
    # The first twenty rows keep all that they see.
    torch.testing.assert_close(found[0][:, :20], dense[:, :20], atol=1e-4, rtol=1e-4)


def run(capsys, *argv):
    code = cli.main(["sweep", *argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def tiny(tiny_model_dir):
    return ["--model", str(tiny_model_dir), "--contexts", "1"]


def test_relatives_are_compared_kept_and_resumed(capsys, tmp_path, tiny, monkeypatch):
    options = ["--relatives", "msa", "moba", "--budgets", "128", *tiny, "--out", str(tmp_path)]
    code, out, _ = run(capsys, *options, "--json")
    document = json.loads(out)
    assert code == 0
    assert [(row["scorer"], row["budget"]) for row in document["rows"]] == [
        ("msa", 128),
        ("moba", 128),
    ]
    rules = document["setup"]["relatives"]
    assert [rule["name"] for rule in rules] == ["msa", "moba"]
    assert all(rule["faithful"] and rule["stand_in"] for rule in rules)
    # A page of a run reads blocks in sweep.json, and these are tokens.
    assert [file.name for file in tmp_path.glob("*.json")] == ["relatives.json"]
    assert run(capsys, *options)[0] == 2  # there is one already
    monkeypatch.setattr("msa_suites.quality.sweep._measure", None)  # nothing is measured again
    code, out, _ = run(capsys, *options, "--resume")
    assert code == 0
    words = " ".join(out.split())
    assert "128 tokens" in words
    assert "moba (arXiv 2502.13189), scorer mean, blocks of 64, kept: 0 sink and 1 local" in words
    assert "faithful: Large blocks" in words
    assert "stand-in: A group chooses by its mean query" in words
    changed = [*options, "--resume"]
    changed[changed.index("128")] = "256"
    changed += ["--seed", "1"]
    code, _, err = run(capsys, *changed)
    assert code == 2
    assert "wanted a sweep with" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--relatives", "mobas"], "--relatives: wanted one of msa, moba"),
        (["--relatives", "msa", "msa"], "--relatives: wanted each name once"),
        (["--relatives", "--block", "64"], "--block: wanted none with --relatives"),
        (["--relatives", "--scorers", "max"], "--scorers: wanted none with --relatives"),
        (["--relatives", "--budgets", "64"], "--budgets: wanted at least 96 for msa"),
        (["--relatives", "--budgets", "128", "128"], "--budgets: wanted each name once"),
        (["--relatives", "--budgets", "2048"], "MSA equals dense attention"),
        (["--resume"], "--resume: wanted a sweep in --out"),
        (["--budgets", "1"], "local + 1 sink blocks that are forced, got 1"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_measured(capsys, options, words):
    code, out, err = run(capsys, *options)
    assert (code, out) == (2, "")
    assert words in err


def test_a_damaged_sweep_is_no_traceback(capsys, tmp_path):
    (tmp_path / "sweep.json").write_text('{"rows": 1}')
    code, _, err = run(capsys, "--resume", "--out", str(tmp_path))
    assert code == 2
    assert "wanted a recorded sweep" in err


def test_relatives_are_listed(capsys):
    assert cli.main(["list", "relatives", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["relatives"]
    assert [row["name"] for row in rows] == list(RULES)
    assert all("Faithful: " in row["what"] and "Stand-in: " in row["what"] for row in rows)
