"""Top-k: ties, NaN, infinities, forced blocks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msa import fast, reference
from msa.packing import cumulative

VALUES = [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0, -1.0, 1e-40, 3.4e38]


@settings(max_examples=80, deadline=None)
@given(
    q_len=st.integers(1, 30),
    earlier=st.integers(0, 30),
    block=st.sampled_from([1, 2, 3]),
    topk=st.integers(3, 8),
    forced=st.sampled_from([(1, 0), (2, 1), (1, 2), (3, 0)]),
    odd=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 9),
)
def test_odd_scores(
    q_len: int,
    earlier: int,
    block: int,
    topk: int,
    forced: tuple[int, int],
    odd: float,
    seed: int,
) -> None:
    g = torch.Generator().manual_seed(seed)
    k_len = q_len + earlier
    scores = torch.randn(q_len, 2, -(-k_len // block), generator=g)
    picked = torch.tensor(VALUES)[torch.randint(len(VALUES), scores.shape, generator=g)]
    scores = torch.where(torch.rand(scores.shape, generator=g) < odd, picked, scores)
    kept = scores.clone()
    options = {
        "cu_q": cumulative([q_len]),
        "cu_k": cumulative([k_len]),
        "block": block,
        "topk": topk,
        "local_blocks": forced[0],
        "sink_blocks": forced[1],
    }
    wanted = reference.select_blocks(scores, **options)
    assert torch.equal(fast.select_blocks(scores, **options), wanted)
    assert torch.equal(scores.nan_to_num(), kept.nan_to_num())


def test_all_equal_scores_over_many_chunks() -> None:
    length, block, topk = 1500, 4, 5
    cu = cumulative([length])
    scores = torch.zeros(length, 2, length // block)
    got = fast.select_blocks(scores, cu_q=cu, cu_k=cu, block=block, topk=topk)
    assert got[-1, 0].tolist() == [0, 1, 2, 3, length // block - 1]
    assert torch.equal(
        got, reference.select_blocks(scores, cu_q=cu, cu_k=cu, block=block, topk=topk)
    )


def test_wider_scores_than_needed_and_a_strided_view() -> None:
    cu = cumulative([64])
    wide = torch.randn(2, 64, 40).transpose(0, 1)
    got = fast.select_blocks(wide, cu_q=cu, cu_k=cu, block=4, topk=3)
    assert torch.equal(got, reference.select_blocks(wide, cu_q=cu, cu_k=cu, block=4, topk=3))
