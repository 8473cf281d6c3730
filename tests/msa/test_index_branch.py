"""The index branch: norm, rotation, and the names and numbers of transformers' indexer."""

from __future__ import annotations

import math

import pytest
import torch

from msa.index_branch import GemmaRMSNorm, IndexBranch, rotary_table, rotate

HIDDEN, GROUPS, DIM, ROTARY = 24, 3, 128, 64


@pytest.fixture
def branch():
    made = IndexBranch(hidden_size=HIDDEN, groups=GROUPS)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw))
    return made


@torch.no_grad()
def test_it_is_the_indexer_of_transformers(branch):
    """Weights load by name both ways; queries and keys are equal to the last bit."""
    from transformers.models.minimax_m3_vl import MiniMaxM3VLTextConfig
    from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl as theirs

    config = MiniMaxM3VLTextConfig(
        vocab_size=2,
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=GROUPS,
        num_key_value_heads=GROUPS,
        index_n_heads=GROUPS,
        layer_types=["minimax_m3_sparse"],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 5e6,
            "partial_rotary_factor": 0.5,
        },
    )
    indexer = theirs.MiniMaxM3VLIndexer(config, 0)
    indexer.load_state_dict(branch.state_dict())
    assert branch.load_state_dict(indexer.state_dict()).missing_keys == []

    hidden = torch.randn(50, HIDDEN, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(300_000, 300_050)
    rotated = []
    plain = theirs.apply_rotary_pos_emb

    def watched(*args, **kwargs):
        rotated.append(plain(*args, **kwargs))
        return rotated[-1]

    cos, sin = theirs.MiniMaxM3VLRotaryEmbedding(config)(hidden, positions[None])
    assert cos.shape[-1] == ROTARY
    theirs.apply_rotary_pos_emb = watched
    try:
        indexer(hidden[None], (cos, sin), None, torch.arange(50)[None])
    finally:
        theirs.apply_rotary_pos_emb = plain
    q_idx, k_idx = branch(hidden, positions)
    assert tuple(q_idx.shape) == (50, GROUPS, DIM)
    assert tuple(k_idx.shape) == (50, 1, DIM)
    torch.testing.assert_close(q_idx, rotated[0][0][0].transpose(0, 1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(k_idx, rotated[0][1][0].transpose(0, 1), atol=1e-6, rtol=1e-6)


def test_norm_has_the_gain_one_plus_weight():
    norm = GemmaRMSNorm(4, eps=0.0)
    x = torch.tensor([[3.0, -3.0, 3.0, -3.0]])
    assert norm(x).tolist() == [[1.0, -1.0, 1.0, -1.0]]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
    assert norm(x).tolist() == [[1.0, -2.0, 0.0, -1.5]]
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_norm_is_computed_in_float32():
    x = torch.tensor([[300.0, 300.0]], dtype=torch.float16)  # its square overflows float16
    assert GemmaRMSNorm(2)(x).tolist() == [[1.0, 1.0]]


def test_rotation_is_in_halves_and_partial():
    cos, sin = rotary_table(torch.tensor([2]), rotary_dim=4, theta=100.0, dtype=torch.float64)
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]], dtype=torch.float64)
    got = rotate(x, cos, sin)[0, 0].tolist()
    for i, angle in enumerate((2.0, 2.0 / 10.0)):
        first, second = float(x[0, 0, i]), float(x[0, 0, i + 2])
        turned = complex(first, second) * complex(math.cos(angle), math.sin(angle))
        assert got[i] == pytest.approx(turned.real, abs=1e-6)
        assert got[i + 2] == pytest.approx(turned.imag, abs=1e-6)
    assert got[4:] == [5.0, 6.0]


def test_scores_depend_on_distance_alone(branch):
    """What a rotation is for: one position more on both sides changes no score."""
    hidden = torch.randn(20, HIDDEN, generator=torch.Generator().manual_seed(2))
    scores = []
    with torch.no_grad():
        for start in (0, 7):
            q_idx, k_idx = branch(hidden, torch.arange(start, start + 20))
            scores.append(torch.einsum("tgd,sd->tgs", q_idx, k_idx[:, 0]))
    torch.testing.assert_close(*scores, atol=1e-3, rtol=1e-4)


def test_bad_input():
    with pytest.raises(ValueError, match=r"^rotary_dim: wanted an even number of at most 8"):
        IndexBranch(hidden_size=4, groups=1, index_dim=8, rotary_dim=16)
    with pytest.raises(ValueError, match=r"^groups: wanted an int above 0, got int 0"):
        IndexBranch(hidden_size=4, groups=0)
    with pytest.raises(ValueError, match=r"^rotary_dim: wanted an even number of channels, got 3"):
        rotary_table(torch.arange(2), rotary_dim=3, theta=1e4, dtype=torch.float32)
    branch = IndexBranch(hidden_size=4, groups=1)
    with pytest.raises(ValueError, match=r"^hidden: wanted shape \[T, 4\]"):
        branch(torch.zeros(3, 5), torch.arange(3))
    with pytest.raises(ValueError, match=r"^positions: wanted \[3\], got \[2\]"):
        branch(torch.zeros(3, 4), torch.arange(2))
    with pytest.raises(ValueError, match=r"^x: wanted at least 4 channels to rotate, got 2"):
        rotate(torch.zeros(1, 1, 2), torch.ones(1, 2), torch.ones(1, 2))
