"""The layer around the operations: what it refuses, and that sequences do not mix."""

from __future__ import annotations

import pytest
import torch
from layer_weights import random_weights

from msa import reference
from msa.config import MSAConfig
from msa.layer import LayerShape, attention_layer
from msa.packing import cumulative

SHAPE = LayerShape(hidden_size=12, q_heads=4, kv_heads=2, head_dim=8, rotary_dim=4)
CONFIG = MSAConfig(block=4, topk=2, index_dim=8)


def run(hidden, weights, lengths, config=CONFIG):
    return attention_layer(
        hidden, weights, cu=cumulative(lengths), shape=SHAPE, config=config, operations=reference
    )


def test_sequences_do_not_mix():
    weights = random_weights(SHAPE, 8, seed=0)
    hidden = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    out, selection = run(hidden, weights, [19, 11])
    for rows in (slice(0, 19), slice(19, 30)):
        alone, chosen = run(hidden[rows], weights, [rows.stop - rows.start])
        assert torch.equal(selection[rows], chosen)
        torch.testing.assert_close(out[rows], alone)


def test_bad_input():
    weights = random_weights(SHAPE, 8, seed=0)
    hidden = torch.zeros(5, 12)
    with pytest.raises(ValueError, match=r"^cu_q: wanted a last total of 5 rows, got 4"):
        run(hidden, weights, [4])
    with pytest.raises(ValueError, match=r"^weights: wanted \['indexer.k_norm.weight'"):
        run(hidden, {k: v for k, v in weights.items() if k != "q_proj.weight"}, [5])
    with pytest.raises(ValueError, match=r"^v_proj.weight: wanted shape \[16, 12\]"):
        run(hidden, {**weights, "v_proj.weight": torch.zeros(3, 12)}, [5])
    with pytest.raises(TypeError, match=r"^q_proj.weight: wanted bfloat16"):
        run(hidden.bfloat16(), weights, [5])
    with pytest.raises(ValueError, match=r"^q: wanted a number of heads that is a multiple"):
        LayerShape(q_heads=3, kv_heads=2)
    with pytest.raises(ValueError, match=r"^rotary_dim: wanted an even number of at most 8"):
        LayerShape(head_dim=8, rotary_dim=16)
