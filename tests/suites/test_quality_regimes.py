from __future__ import annotations

from statistics import mean

import pytest
import torch
from torch.nn import functional

from msa_suites.quality.regimes import (
    REGIMES,
    attend_densely,
    draw_attention,
    mass_on_random_tensors,
)


@pytest.fixture(scope="module")
def found():
    rows = list(mass_on_random_tensors(seeds=(0, 1, 2)))
    assert len(rows) == 2 * 3 * 2
    return {
        (regime, topk): [row for row in rows if (row.regime, row.topk) == (regime, topk)]
        for regime in REGIMES
        for topk in (16, 32)
    }


@pytest.mark.parametrize(("topk", "least"), [(16, 0.925), (32, 0.991)])
def test_concentrated_attention_is_kept(found, topk, least):
    rows = found["concentrated", topk]
    assert mean(row.mass for row in rows) >= least
    assert mean(row.error for row in rows) < 0.05


@pytest.mark.parametrize("topk", [16, 32])
def test_on_noise_the_selector_beats_chance_and_stays_far_from_dense(found, topk):
    for row in found["white_noise", topk]:
        assert row.uniform < row.mass < row.uniform + 0.1
        assert row.error > 0.5


def test_a_full_budget_is_dense_attention():
    sizes = {"length": 512, "block": 64, "queries": 8, "seeds": (0,)}
    for row in mass_on_random_tensors(budgets=(8,), **sizes):
        assert row.mass == pytest.approx(1.0, abs=1e-6)
        assert row.error < 1e-5


def test_dense_attention_is_causal_sdpa():
    q, k, v = draw_attention("white_noise", length=40, dim=8, seed=0, queries=40)
    heads = (tensor.double().transpose(0, 1) for tensor in (q, k, v))
    wanted = functional.scaled_dot_product_attention(*heads, is_causal=True, scale=0.3)
    torch.testing.assert_close(attend_densely(q, k, v, scale=0.3), wanted.transpose(0, 1))
    last = attend_densely(q[-5:], k, v, scale=0.3)
    torch.testing.assert_close(last, wanted.transpose(0, 1)[-5:])


def test_unknown_regime_is_refused():
    with pytest.raises(ValueError, match="regime: wanted one of concentrated, white_noise, got 'p"):
        draw_attention("pink", length=64, dim=8, seed=0, queries=4)
