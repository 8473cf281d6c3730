from __future__ import annotations

import pytest
import torch

from msa_suites.models.attention import MsaSettings
from msa_suites.models.loading import load_model
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.fidelity import compare_text, divergence, measure_fidelity
from msa_suites.quality.samples import to_samples


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return load_model(str(tiny_model_dir))[0]


TEXT = tuple(b"a text of some length, said again and again. " * 16)[:600]


def test_divergence_of_equal_logits_is_zero():
    logits = torch.randn(5, 9)
    kl, agrees = divergence(logits, logits + 3.0)
    assert kl.abs().max() < 1e-6
    assert agrees.all()


def test_divergence_is_what_the_definition_says():
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    kl, agrees = divergence(p.log(), q.log())
    assert kl.item() == pytest.approx(0.5108256, abs=1e-6)
    assert divergence(q.log(), p.log())[0].item() == pytest.approx(0.3680642, abs=1e-6)
    assert agrees.item()


def test_the_oracle_finds_every_block_of_its_own(model):
    found = compare_text(model, TEXT, MsaSettings(scorer="oracle"))
    assert found.blocks == pytest.approx(1.0)
    other = compare_text(model, TEXT, MsaSettings(scorer="random"))
    assert other.blocks < found.blocks
    assert 0 < other.mass < found.mass < 1
    assert other.kl > 0
    assert other.agreement < 1


def test_a_larger_budget_is_closer_to_dense(model):
    small = compare_text(model, TEXT, MsaSettings(topk=3))
    large = compare_text(model, TEXT, MsaSettings(topk=18))
    assert large.kl < small.kl
    assert large.mass > small.mass


def test_forced_blocks_alone_leave_no_choice(model):
    assert compare_text(model, TEXT, MsaSettings(topk=2)).blocks is None


def test_a_text_within_the_budget_is_invalid(model):
    with pytest.raises(QualityInvalid, match="= 600 tokens, got 600"):
        compare_text(model, TEXT, MsaSettings(topk=30, block=20))


def test_sparse_attention_that_stayed_dense_is_invalid(model, monkeypatch):
    monkeypatch.setattr("msa_suites.quality.fidelity.use_msa", lambda *_, **__: None)
    with pytest.raises(QualityInvalid, match=r"got the same .* MSA did not run"):
        compare_text(model, TEXT, MsaSettings(topk=3))


def test_rows_are_plain_and_paired_by_item(tiny_model_dir):
    rows = measure_fidelity(str(tiny_model_dir), limit=1)
    assert [row["metric"] for row in rows[:4]] == ["kl", "agreement", "mass", "blocks"]
    assert len({row["item"] for row in rows[:4]}) == 1
    keys = [(row["metric"], row["item"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {row["metric"] for row in rows[4:]} == {
        f"mass_{regime}_{topk}" for regime in ("concentrated", "white_noise") for topk in (16, 32)
    }
    assert rows == measure_fidelity(str(tiny_model_dir), limit=1)
    series = {sample.series for sample in to_samples(rows, subject="head")}
    assert {"quality/fidelity/kl", "quality/fidelity/white_noise_16/mass"} <= series
