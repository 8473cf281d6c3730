"""The scorers of MSA's relatives: against their definitions token by token, and what marks each."""

from __future__ import annotations

import pytest
import torch

from msa import reference
from msa.packing import cumulative, segments
from msa.scorers import SCORERS
from msa.scorers.compressed import Windows

RELATIVES = ("infllm_v2", "nsa_standin", "dsa_standin")
LENGTHS = [(9, 9), (3, 37), (1, 8), (0, 5), (21, 21), (1, 1)]
GROUPS, HEADS, DIM, SCALE = 2, 3, 6, 0.3


def drawn(rows, heads, seed):
    return torch.randn(rows, heads, DIM, generator=torch.Generator().manual_seed(seed))


def one_sequence(keys, queries=None, *, seed=0):
    """Every query head and the keys of one sequence, and its packing."""
    queries = keys if queries is None else queries
    q, k = drawn(queries, GROUPS * HEADS, seed), drawn(keys, GROUPS, seed + 1)
    return q, k, {"cu_q": cumulative([queries]), "cu_k": cumulative([keys]), "scale": SCALE}


def row_by_definition(name, heads, keys, block):
    """Scores ``[G, blocks]`` of a query, heads ``[G, R, D]``, that sees keys ``[n, G, D]``."""
    logits = torch.einsum("grd,ngd->grn", heads, keys) * SCALE
    blocks = torch.arange(len(keys)) // block
    if name == "dsa_standin":
        token = logits.clamp(min=0).sum((0, 1)) / (heads.shape[0] * heads.shape[1])
        best = [token[blocks == b].max() for b in range(int(blocks[-1]) + 1)]
        return torch.stack(best).expand(heads.shape[0], -1)
    length, stride = max(block // 2, 1), max(block // 4, 1)
    found = torch.zeros(heads.shape[0], int(blocks[-1]) + 1, dtype=torch.float64)
    # A product with a mean key is the mean of the products.
    starts = range(0, len(keys) - length + 1, stride)
    if not starts:
        return found
    compressed = torch.stack([logits[..., s : s + length].mean(-1) for s in starts], -1)
    share = compressed.exp() / compressed.exp().sum(-1, keepdim=True)
    for w, start in enumerate(starts):
        mass = share[..., w].sum(1)
        for token in range(start, start + length):
            b = int(blocks[token])
            if name == "infllm_v2":
                found[:, b] = torch.maximum(found[:, b], mass)
            else:
                found[:, b] += mass / length
    return found


@pytest.mark.parametrize("block", [1, 2, 3, 4, 7, 9, 16])
@pytest.mark.parametrize("name", RELATIVES)
def test_scorer_is_its_definition(name, block):
    cu_q, cu_k = (cumulative([pair[i] for pair in LENGTHS]) for i in (0, 1))
    q, k = drawn(int(cu_q[-1]), GROUPS * HEADS, 1), drawn(int(cu_k[-1]), GROUPS, 2)
    got = SCORERS[name](q, k, cu_q=cu_q, cu_k=cu_k, block=block, scale=SCALE)
    want = torch.full((len(q), GROUPS, -(-37 // block)), -torch.inf, dtype=torch.float64)
    for s in segments(cu_q, cu_k):
        for i in range(s.q_len):
            keys = k[s.k_start : s.k_start + s.first_position + i + 1].double()
            heads = q[s.q_start + i].double().view(GROUPS, HEADS, DIM)
            row = row_by_definition(name, heads, keys, block)
            want[s.q_start + i, :, : row.shape[1]] = row
    assert got.dtype == torch.float32
    assert torch.equal(got.isinf(), want.isinf())
    torch.testing.assert_close(got.double(), want, atol=2e-6, rtol=2e-6)


def test_windows_are_those_of_the_papers():
    """Blocks of 64: 32 tokens every 16, and of those windows NSA counts 1, 2, 2, 2, 1."""
    windows = Windows.of_block(64)
    assert (windows.length, windows.stride) == (32, 16)
    ids, share = windows.of_blocks(3, 64, count=11)  # 192 tokens
    counted = [
        {int(i): float(2 * s) for i, s in zip(*row, strict=True) if s}
        for row in zip(ids, share, strict=True)
    ]
    assert counted == [
        {0: 2, 1: 2, 2: 2, 3: 1},
        {3: 1, 4: 2, 5: 2, 6: 2, 7: 1},
        {7: 1, 8: 2, 9: 2, 10: 2},
    ]
    assert set(ids[share == 0].tolist()) == {11}


def test_nsa_shares_out_all_of_the_attention_and_infllm_does_not():
    q, k, how = one_sequence(50)
    scores = SCORERS["nsa_standin"](q, k, **how, block=8)
    total = scores.clamp(min=0).sum(-1)
    # Windows are four tokens long: before the fourth there is none, and so no score.
    torch.testing.assert_close(total[3:], torch.full_like(total[3:], HEADS))
    assert torch.equal(total[:3], torch.zeros_like(total[:3]))
    best = SCORERS["infllm_v2"](q, k, **how, block=8).clamp(min=0)
    assert bool((best.sum(-1)[30:] < HEADS - 0.5).all())


@pytest.mark.parametrize("name", ["infllm_v2", "nsa_standin"])
def test_a_window_counts_once_it_is_wholly_past(name):
    """Blocks of 8, windows of 4 every 2: the one over tokens 6 to 9 is seen from token 9 on."""
    q, k, how = one_sequence(16)
    changed = k.clone()
    changed[8] += 3.0  # in the windows over 6 to 9 and 8 to 11
    before, after = (SCORERS[name](q, x, **how, block=8) for x in (k, changed))
    assert torch.equal(before[:9], after[:9])
    assert bool((before[9:] != after[9:]).any(-1).all())
    # Token 8 sees itself, and still its block has no whole window.
    assert torch.equal(before[8, :, 1], torch.zeros(GROUPS))
    # The window across the border is in both blocks.
    assert bool((before[9, :, 1] > 0).all())


@pytest.mark.parametrize("name", ["infllm_v2", "nsa_standin"])
def test_heads_are_summed_after_their_softmax(name):
    """One head with huge logits must not drown the others, as it would in a mean of queries."""
    q, k, how = one_sequence(40)
    loud = q.view(40, GROUPS, HEADS, DIM).clone()
    loud[:, :, 0] *= 100
    scores = SCORERS[name](loud.flatten(1, 2), k, **how, block=8)
    assert bool((scores[-1].sort(-1).values[:, -2] > 0.05).all())
    assert float(scores[-1].max()) <= HEADS


def test_dsa_has_one_selection_for_all_groups():
    q, k, how = one_sequence(60, queries=30)
    scores = SCORERS["dsa_standin"](q, k, **how, block=1)
    assert torch.equal(scores[:, 0], scores[:, 1])
    where = {"cu_q": how["cu_q"], "cu_k": how["cu_k"], "block": 1}
    chosen = reference.select_blocks(scores, **where, topk=12, local_blocks=1, sink_blocks=0)
    assert torch.equal(chosen[:, 0], chosen[:, 1])
    # What one group's key says moves both.
    k[7, 1] += 5.0
    moved = SCORERS["dsa_standin"](q, k, **how, block=1) != scores
    assert bool(moved[:, 0, 7].any())
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert not bool(moved[..., torch.arange(60) != 7].any())


def test_dsa_does_not_let_heads_cancel():
    """Two heads that want opposite keys: the mean query sees nothing, the ReLU sees both."""
    heads = torch.zeros(3, 2, 2)
    heads[:, 0, 0], heads[:, 1, 0] = 1.0, -1.0
    keys = torch.tensor([[[2.0, 0.0]], [[-4.0, 0.0]], [[0.0, 9.0]]])
    cu = cumulative([3])
    scores = SCORERS["dsa_standin"](heads, keys, cu_q=cu, cu_k=cu, block=1, scale=1.0)
    assert scores[2, 0].tolist() == [1.0, 2.0, 0.0]
