"""Block scores: hidden blocks exactly, the rest to rounding."""

from __future__ import annotations

import pytest
import torch
from kernel_batches import Shape

from msa import reference
from msa_kernels.triton_ops import block_scores
from msa_kernels.triton_ops.scoring import launching
from msa_suites.hostile import with_gaps

SHAPES = {
    "ragged": Shape((7, 0, 33, 1), (7, 5, 50, 40)),
    "chunk-inside-block": Shape((21, 2), (70, 35), groups=3, index_dim=48),
    "one-query-many-keys": Shape((1, 1), (150, 16), groups=4, index_dim=128, block=32),
    "block-128": Shape((9, 130), (300, 130), groups=1, index_dim=64, block=128),
    "no-power-of-two": Shape((30,), (130,), groups=5, index_dim=80, block=48),
    "seventeen-groups": Shape((9, 3), (20, 3), groups=17),
    "float16": Shape((20, 5), (70, 100), index_dim=64, dtype=torch.float16),
}


def assert_scores(got, q, k, packing, scale):
    want = reference.block_scores(q.double(), k.double(), **packing, scale=scale)
    assert got.dtype == torch.float32
    assert got.shape == want.shape
    assert torch.equal(got.isneginf(), want.isneginf())
    largest = k.double().norm(dim=-1).max()
    bound = 4 * torch.finfo(torch.float32).eps * q.double().norm(dim=-1) * largest * abs(scale)
    error = torch.where(want.isfinite(), got.double() - want, 0.0).abs()
    assert bool((error <= bound[..., None]).all())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("own_keys", [False, True], ids=["shared", "own"])
def test_scores_of_hostile_shapes(name, own_keys):
    shape = SHAPES[name]
    q, k = shape.index(shape.groups if own_keys else 1)
    scale = shape.index_dim**-0.5
    got = block_scores(q, k, **shape.packing, scale=scale)
    assert_scores(got, q, k, shape.packing, scale)


# numpy speaks of -inf times 0, which the store leaves out.
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply:RuntimeWarning")
@pytest.mark.parametrize("scale", [-0.5, 0, 3])
def test_the_best_token_is_that_of_the_scaled_scores(scale):
    shape = SHAPES["ragged"]
    q, k = shape.index()
    assert_scores(block_scores(q, k, **shape.packing, scale=scale), q, k, shape.packing, scale)


def test_views_with_gaps_and_strided_channels():
    shape = SHAPES["chunk-inside-block"]
    q, k = shape.index(shape.groups)
    channels = torch.full((*k.shape, 2), torch.nan)
    channels[..., 1] = k
    got = block_scores(with_gaps(q), channels[..., 1], **shape.packing, scale=0.2)
    assert torch.equal(got, block_scores(q, k, **shape.packing, scale=0.2))


@pytest.mark.parametrize("programs", [1, 10**6], ids=["long-runs", "short-runs"])
def test_a_program_may_take_one_step_or_many(monkeypatch, programs):
    monkeypatch.setattr(launching, "_PROGRAMS", programs)
    shape = Shape((5, 3), (400, 100), groups=2)
    q, k = shape.index()
    assert_scores(block_scores(q, k, **shape.packing, scale=0.2), q, k, shape.packing, 0.2)


def test_keys_that_no_query_sees_change_nothing():
    """The keys of the future, of other sequences, and whatever lies behind the last one."""
    shape = Shape((3,), (40,), groups=1)
    q, k = shape.index()
    clean = block_scores(q, k, **shape.packing, scale=0.2)
    # Keys that would win with every query that read them.
    held = (100 * q.sum(0)).expand(200, 1, -1).clone()
    held[:40] = k
    assert torch.equal(block_scores(q, held[:40], **shape.packing, scale=0.2), clean)
    future = k.clone()
    future[39] = 100 * q[1]
    got = block_scores(q, future, **shape.packing, scale=0.2)
    assert torch.equal(got[:2], clean[:2])
    assert not torch.equal(got[2], clean[2])


def test_a_nan_is_passed_over():
    shape = Shape((1,), (32,), groups=1)
    q, k = shape.index()
    spoiled = k.clone()
    spoiled[3] = torch.nan
    got = block_scores(q, spoiled, **shape.packing, scale=0.2)
    without = k.clone()
    without[3] = without[4]
    assert torch.equal(got, block_scores(q, without, **shape.packing, scale=0.2))


@pytest.mark.parametrize(("low", "high"), [(0, 9), (9, 41), (6, 8), (40, 41)])
def test_some_rows_are_part_of_the_whole(low, high):
    shape = SHAPES["ragged"]
    q, k = shape.index()
    whole = block_scores(q, k, **shape.packing, scale=0.2)
    part = torch.full((high - low, *whole.shape[1:]), -torch.inf)
    launching.score_rows(q, k, part, low, **shape.packing, scale=0.2)
    # The interpreter's products are those of a BLAS, some of which round a row by its place.
    torch.testing.assert_close(part, whole[low:high], rtol=1e-6, atol=1e-6)


def test_no_queries():
    shape = Shape((0, 0), (5, 0))
    q, k = shape.index()
    assert block_scores(q, k, **shape.packing, scale=1.0).shape == (0, 2, 1)
