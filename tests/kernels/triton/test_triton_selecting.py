"""Selection: exactly the reference's, ties and all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_batches import Shape

from msa import reference
from msa_kernels.triton_ops import select_blocks, selecting
from msa_suites.hostile import with_gaps

INF = float("inf")
#: Few values, so that ties are everywhere.
HOSTILE = [float("nan"), -float("nan"), INF, -INF, 0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3e38]


@st.composite
def calls(draw):
    """Scores and settings of small batches."""
    lengths = draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900)), min_size=1, max_size=3)
    )
    block = draw(st.sampled_from([16, 48, 128]))
    groups = draw(st.integers(1, 3))
    local, sinks = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    topk = draw(st.integers(local + sinks, 64))
    shape = Shape(
        tuple(q for q, _ in lengths), tuple(q + before for q, before in lengths),
        groups=groups, block=block, topk=topk,
    )  # fmt: skip
    spare = draw(st.integers(0, 2))
    columns = -(-max(shape.k_lens) // block) + spare
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    size = (shape.rows, groups, columns)
    scores = torch.tensor(HOSTILE)[torch.randint(len(HOSTILE), size, generator=g)]
    if draw(st.booleans()):
        scores = torch.where(
            torch.rand(size, generator=g) < 0.8, torch.randn(size, generator=g), scores
        )
    return scores, {**shape.packing, "topk": topk, "local_blocks": local, "sink_blocks": sinks}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(call=calls(), widest=st.sampled_from([2, 8, 1024]))
def test_any_scores_are_ranked_as_the_reference_ranks_them(call, widest):
    scores, kwargs = call
    before, selecting._WIDEST = selecting._WIDEST, widest
    try:
        got = select_blocks(scores, **kwargs)
    finally:
        selecting._WIDEST = before
    assert got.dtype == torch.int32
    assert torch.equal(got, reference.select_blocks(scores, **kwargs))


def test_zeros_of_either_sign_tie():
    shape = Shape((1,), (100,), groups=1)
    scores = torch.tensor([[[-0.0, 0.0, -0.0, 0.0, 0.0, -0.0, 0.0]]])
    got = select_blocks(scores, **shape.packing, topk=3)
    assert got.tolist() == [[[0, 1, 6]]]


@pytest.mark.parametrize("topk", [1, 16, 33, 64])
def test_twenty_thousand_blocks(topk):
    shape = Shape((2, 1), (320_000, 100), groups=2, block=16)
    scores = torch.randn(3, 2, 20_000, generator=shape.generator())
    scores[1] = (scores[1] * 2).round()
    kwargs = {**shape.packing, "topk": topk, "local_blocks": 1, "sink_blocks": 0}
    got = select_blocks(scores, **kwargs)
    assert torch.equal(got, reference.select_blocks(scores, **kwargs))


def test_what_a_row_does_not_see_changes_nothing():
    shape = Shape((5,), (40,), groups=1, topk=2)
    scores = torch.randn(5, 1, 3, generator=shape.generator())
    kwargs = {**shape.packing, "topk": 2}
    want = select_blocks(scores, **kwargs)
    held = torch.full((5, 1, 30), INF)
    held[..., :3] = scores
    assert torch.equal(select_blocks(held, **kwargs), want)
    assert torch.equal(select_blocks(with_gaps(scores), **kwargs), want)


@pytest.mark.parametrize(("low", "high"), [(0, 4), (4, 17), (16, 17)])
def test_some_rows_are_part_of_the_whole(low, high):
    shape = Shape((7, 0, 9, 1), (70, 3, 50, 90), groups=3)
    scores = torch.randn(17, 3, 6, generator=shape.generator())
    whole = select_blocks(scores, **shape.packing, topk=3)
    part = torch.empty_like(whole[low:high])
    selecting.select_rows(
        scores[low:high], part, low, **shape.packing, local_blocks=1, sink_blocks=0
    )
    assert torch.equal(part, whole[low:high])
