"""Our layer and transformers' MiniMax-M3 layer, given the same weights."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest
import torch
from layer_weights import random_weights

import msa.fast
from msa import reference
from msa.config import MSAConfig
from msa.layer import LayerShape, attention_layer, layer_inputs
from msa.packing import cumulative, segments
from msa_kernels import identity, load
from msa_kernels.adapters import transformers_m3

SHAPE = LayerShape(hidden_size=48, q_heads=8, kv_heads=4, head_dim=16, rotary_dim=8)
CONFIG = MSAConfig(block=8, topk=3, index_dim=16)
LENGTHS = [70, 9, 1, 33]
EPS = torch.finfo(torch.float32).eps


def drawn(seed=0):
    weights = random_weights(SHAPE, CONFIG.index_dim, seed)
    hidden = torch.randn(
        sum(LENGTHS), SHAPE.hidden_size, generator=torch.Generator().manual_seed(seed + 1)
    )
    return hidden, weights, cumulative(LENGTHS)


def scores_and_bound(hidden, weights, cu):
    """Reference block scores, and per row what rounding may move them."""
    x = layer_inputs(hidden, weights, cu=cu, shape=SHAPE, index_dim=CONFIG.index_dim)
    scale = CONFIG.index_dim**-0.5
    scores = reference.block_scores(x.q_idx, x.k_idx, cu_q=cu, cu_k=cu, block=8, scale=scale)
    # 8 instead of 4: the inputs themselves went through a norm and a rotation on both sides.
    bound = 8 * EPS * x.q_idx.norm(dim=-1) * x.k_idx.norm(dim=-1).max() * scale
    return scores, bound


def differing_rows(got, want, scores, bound):
    """Rows whose sets differ although the margin between k-th and next exceeds rounding."""
    same = (got.sort(-1).values == want.sort(-1).values).all(-1)
    local = torch.cat([s.positions() for s in segments(cumulative(LENGTHS), cumulative(LENGTHS))])
    rest = scores.scatter(-1, (local // 8)[:, None, None].expand(-1, 4, 1), -torch.inf)
    ranked = rest.sort(-1, descending=True).values
    free = CONFIG.topk - 1
    gap = (ranked[..., free - 1] - ranked[..., free]).nan_to_num(nan=torch.inf)
    clear = gap > bound
    assert float(clear.float().mean()) > 0.95
    return int((~same & clear).sum())


@pytest.mark.parametrize("operations", [reference, msa.fast], ids=["reference", "torch"])
@pytest.mark.parametrize("seed", [0, 1])
def test_selection_and_output_agree(operations, seed):
    hidden, weights, cu = drawn(seed)
    kwargs = {"cu": cu, "shape": SHAPE, "config": CONFIG}
    want, want_selection = transformers_m3.model(hidden, weights, **kwargs)
    got, selection = attention_layer(hidden, weights, operations=operations, **kwargs)
    scores, bound = scores_and_bound(hidden, weights, cu)
    assert differing_rows(selection, want_selection, scores, bound) == 0
    # Rows below k * Bk keep all; the others must really have chosen.
    assert int((want_selection >= 0).sum(-1).max()) == 3
    same = (selection.sort(-1).values == want_selection.sort(-1).values).all(-1).all(-1)
    error = (got - want)[same].norm() / want[same].norm()
    assert float(error) < 1e-5


def test_groups_choose_differently():
    """Else the control below would show nothing."""
    hidden, weights, cu = drawn()
    _, selection = transformers_m3.model(hidden, weights, cu=cu, shape=SHAPE, config=CONFIG)
    beyond = torch.cat([s.positions() for s in segments(cu, cu)]) >= 3 * 8
    chosen = selection[beyond].sort(-1).values
    assert float((chosen == chosen[:, :1]).all(-1).all(-1).float().mean()) < 0.5


def test_collapsed_index_heads_are_seen():
    """What releases before 5.13 do: one selection for all groups, the best over the heads."""
    hidden, weights, cu = drawn()
    _, want = transformers_m3.model(hidden, weights, cu=cu, shape=SHAPE, config=CONFIG)
    scores, bound = scores_and_bound(hidden, weights, cu)
    collapsed = scores.amax(1, keepdim=True).expand_as(scores).contiguous()
    got = reference.select_blocks(collapsed, cu_q=cu, cu_k=cu, block=8, topk=3)
    assert differing_rows(got, want, scores, bound) > 50


@pytest.mark.parametrize(
    "name", ["q_norm.weight", "k_norm.weight", "indexer.q_norm.weight", "indexer.k_norm.weight"]
)
def test_the_gain_of_every_norm_counts(name):
    """A norm without its ``1 + w`` moves the output or the selection."""
    hidden, weights, cu = drawn()
    kwargs = {"cu": cu, "shape": SHAPE, "config": CONFIG}
    want, want_selection = transformers_m3.model(hidden, weights, **kwargs)
    broken = {**weights, name: torch.zeros_like(weights[name])}
    got, selection = attention_layer(hidden, broken, operations=reference, **kwargs)
    assert not torch.allclose(got, want, atol=1e-3) or not torch.equal(
        selection.sort(-1).values, want_selection.sort(-1).values
    )


def test_bfloat16_layer_agrees_within_its_precision():
    hidden, weights, cu = drawn()
    hidden, weights = hidden.bfloat16(), {n: w.bfloat16() for n, w in weights.items()}
    kwargs = {"cu": cu, "shape": SHAPE, "config": MSAConfig(block=8, topk=16, index_dim=16)}
    want, _ = transformers_m3.model(hidden, weights, **kwargs)
    got, _ = attention_layer(hidden, weights, operations=reference, **kwargs)
    assert got.dtype == torch.bfloat16
    assert float((got - want).float().norm() / want.float().norm()) < 2e-2


class TestAttend:
    """The released selection on given index queries and keys, also for chunks and decoding."""

    @pytest.mark.parametrize("q_lengths", [LENGTHS, [1, 9, 1, 20], [13, 0, 1, 1]])
    def test_agrees_with_the_reference(self, q_lengths):
        draw = torch.Generator().manual_seed(5)
        cu_q, cu_k = cumulative(q_lengths), cumulative(LENGTHS)
        q = torch.randn(sum(q_lengths), 8, 16, generator=draw)
        k, v = torch.randn(2, sum(LENGTHS), 4, 16, generator=draw)
        q_idx = torch.randn(sum(q_lengths), 4, 16, generator=draw)
        k_idx = torch.randn(sum(LENGTHS), 1, 16, generator=draw)
        kwargs = {"block": 8, "topk": 3, "local_blocks": 1, "scale": 0.25, "index_scale": 0.25}
        kept = [x.clone() for x in (q, k, v, q_idx, k_idx)]
        out, selection = load("transformers").attend(
            q, k, v, q_idx, k_idx, cu_q=cu_q, cu_k=cu_k, **kwargs
        )
        want, want_selection = reference.attend(
            q, k, v, q_idx, k_idx, cu_q=cu_q, cu_k=cu_k, **kwargs
        )
        assert all(torch.equal(a, b) for a, b in zip(kept, (q, k, v, q_idx, k_idx), strict=True))
        assert selection.dtype == torch.int32
        held = selection >= 0
        assert not bool((held[..., 1:] & ~held[..., :-1]).any())
        big = torch.iinfo(torch.int32).max
        ascending = selection.masked_fill(~held, big).sort(-1).values
        assert torch.equal(ascending, want_selection.masked_fill(want_selection < 0, big))
        assert float((out - want).norm() / want.norm()) < 1e-5

    def test_what_it_cannot_do(self):
        x, cu = torch.zeros(4, 2, 4), cumulative([4])
        kwargs = {"cu_q": cu, "cu_k": cu, "block": 2, "topk": 2, "scale": 1.0, "index_scale": 1.0}
        with pytest.raises(ValueError, match=r"^sink_blocks: wanted 0"):
            transformers_m3.attend(x, x, x, x, x[:, :1], sink_blocks=1, **kwargs)
        with pytest.raises(ValueError, match=r"^k_idx: wanted 1 head"):
            transformers_m3.attend(x, x, x, x, x, **kwargs)


def test_index_narrower_than_the_rotation_is_refused():
    hidden, weights, cu = drawn()
    narrow = MSAConfig(block=8, topk=3, index_dim=4)
    with pytest.raises(ValueError, match=r"^index_dim: wanted at least the 8 rotated channels"):
        transformers_m3.model(hidden, weights, cu=cu, shape=SHAPE, config=narrow)


def test_the_record_names_the_release_that_ran():
    release = importlib.metadata.version("transformers")
    assert identity(load("transformers")).version.endswith(f"with transformers {release}")


@pytest.mark.parametrize(
    ("installed", "words"), [(True, "got 5."), (False, "got none")], ids=["too old", "none"]
)
def test_transformers_without_the_model_is_refused(monkeypatch, installed, words):
    assert transformers_m3.unavailable() is None

    def version(_):
        if installed:
            return "5.11.0"
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    why = transformers_m3.unavailable()
    assert why is not None
    assert "5.12 or newer" in why
    assert words in why
