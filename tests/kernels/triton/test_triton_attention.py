"""Attention over a given selection, packed: both ways, on hostile shapes and selections."""

from __future__ import annotations

import pytest
import torch
from kernel_batches import Shape, assert_attends

from msa_kernels.triton_ops import attention, sparse_attention
from msa_kernels.triton_ops.attention import key_outer, query_outer
from msa_suites.hostile import with_gaps

# Few rows: a program of the interpreter takes a tenth of a second.
SHAPES = {
    "ragged": Shape((5, 0, 4, 1), (5, 5, 50, 40)),
    "chunk-inside-block": Shape((4, 2), (70, 35), groups=3, share=1, dim=48),
    "group-of-3": Shape((5,), (60,), groups=1, share=3),
    "group-of-16-dim-128": Shape((5, 1), (40, 9), groups=1, share=16, dim=128, topk=2),
    "block-128": Shape((5,), (300,), groups=1, dim=128, block=128, topk=2),
    "no-power-of-two": Shape((4,), (130,), groups=2, dim=80, block=48, topk=5),
    "more-slots-than-blocks": Shape((4, 1), (30, 1), topk=7),
    "float16": Shape((3, 2), (70, 50), share=4, block=32, dtype=torch.float16),
    "float16-dim-128": Shape((4,), (200,), dim=128, block=64, topk=2, dtype=torch.float16),
}


@pytest.fixture(params=list(attention.WAYS))
def attend(request, monkeypatch):
    """``sparse_attention``, made to go one way."""
    monkeypatch.setattr(attention, "way_of", lambda *_: request.param)
    return sparse_attention


@pytest.mark.parametrize("name", SHAPES)
def test_hostile_shapes(attend, name):
    shape = SHAPES[name]
    q, k, v = shape.main()
    selection = shape.selection()
    got = attend(q, k, v, selection, **shape.packing, scale=shape.scale)
    assert_attends(got, q, k, v, selection, shape.packing, shape.scale)


def test_nan_that_is_read_is_passed_on(attend):
    """A row of NaN is not taken for one with nothing to see, which a merge would drop."""
    shape = Shape((4,), (70,), groups=1, topk=2)
    q, k, v = shape.main()
    k[0] = torch.nan
    selection = torch.tensor([[[0, 4]], [[4, 1]]] * 2, dtype=torch.int32)
    out, lse = attend(q, k, v, selection, **shape.packing, scale=shape.scale)
    assert torch.equal(lse.isnan(), torch.tensor([[True], [False]] * 2).expand(4, 2))
    assert torch.equal(out.isnan().all(-1), lse.isnan())
    assert not out[1::2].isnan().any()


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_scores_below_all_numbers_are_nothing_to_see(attend):
    q, k, v = (torch.full((1, 1, 16), x) for x in (1e20, -1e20, 1.0))
    cu, selection = torch.tensor([0, 1]).int(), torch.zeros(1, 1, 1).int()
    out, lse = attend(q, k, v, selection, cu_q=cu, cu_k=cu, block=16, scale=1.0)
    assert not out.any()
    assert lse.item() == -torch.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lists_of_many_tiles(dtype):
    """A block that all rows chose, one that few did, and a last tile that is not full."""
    shape = Shape((150, 9), (170, 100), groups=2, share=3, dtype=dtype)
    q, k, v = shape.main()
    selection = shape.selection()
    selection[:, :, 0] = 0
    out, lse = torch.empty_like(q), torch.empty(shape.rows, 6)
    key_outer.attend_packed(q, k, v, selection, out, lse, **shape.packing, scale=0.3)
    assert_attends((out, lse), q, k, v, selection, shape.packing, 0.3)


def test_a_selection_is_a_set_of_visible_blocks(attend):
    """Twice the same, the future, nonsense of either sign, nothing at all."""
    shape = Shape((12,), (75,), share=1, topk=5)
    q, k, v = shape.main()
    g = shape.generator()
    selection = torch.randint(-2, 8, (12, 2, 5), generator=g, dtype=torch.int32)
    selection[::7] = 0
    selection[::5] = -1
    extremes = torch.tensor([2**31 - 1, -(2**31), 4, 1], dtype=torch.int32)
    selection[3::4, :, :4] = extremes
    got = attend(q, k, v, selection, **shape.packing, scale=0.3)
    known = selection.where(selection < 5, -1)  # the yardstick knows the blocks that there are
    assert_attends(got, q, k, v, known, shape.packing, 0.3)
    assert bool((got[0][::5] == 0).all())
    assert bool(got[1][::5].isneginf().all())


def test_what_nobody_reads_may_hold_anything(attend):
    """NaN in blocks that no row chose, and behind the last key."""
    shape = Shape((6,), (60,), groups=1, topk=2)
    q, k, v = shape.main()
    selection = torch.tensor([[1, 3]], dtype=torch.int32).expand(6, 1, 2)
    want = attend(q, k, v, selection, **shape.packing, scale=0.3)
    read = (torch.arange(60) // 16 % 2 == 1)[:, None, None]
    k, v = (
        torch.cat([x.where(read, torch.nan), torch.full_like(x, torch.nan)])[:60] for x in (k, v)
    )
    got = attend(q, k, v, selection, **shape.packing, scale=0.3)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_logits_that_overflow_without_their_maximum(attend):
    shape = SHAPES["ragged"]
    q, k, v = shape.main()
    selection = shape.selection()
    got = attend(q * 40, k * 10, v, selection, **shape.packing, scale=1.0)
    assert_attends(got, q * 40, k * 10, v, selection, shape.packing, 1.0)


@pytest.mark.parametrize("scale", [0, -0.3])
def test_scales_of_zero_and_below(attend, scale):
    shape = SHAPES["chunk-inside-block"]
    q, k, v = shape.main()
    selection = shape.selection()
    got = attend(q, k, v, selection, **shape.packing, scale=scale)
    assert_attends(got, q, k, v, selection, shape.packing, scale)


def test_views_with_gaps_and_strided_channels(attend):
    shape = SHAPES["group-of-3"]
    q, k, v = shape.main()
    selection = shape.selection()
    want = attend(q, k, v, selection, **shape.packing, scale=0.3)
    channels = torch.full((*v.shape, 2), torch.nan)
    channels[..., 1] = v
    strided = torch.full((2 * len(shape.packing["cu_q"]),), 99, dtype=torch.int32)[::2]
    packing = {**shape.packing, "cu_q": strided.copy_(shape.packing["cu_q"])}
    got = attend(
        with_gaps(q), with_gaps(k), channels[..., 1], with_gaps(selection), **packing, scale=0.3
    )
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_keys_outer_goes_chunk_by_chunk(monkeypatch):
    """Chunks end inside blocks and sequences; the numbers are those of one chunk."""
    shape = SHAPES["ragged"]
    q, k, v = shape.main()
    selection = shape.selection()
    monkeypatch.setattr(attention, "way_of", lambda *_: "key_outer")
    whole = sparse_attention(q, k, v, selection, **shape.packing, scale=0.3)
    row = 4 * shape.topk * shape.dim * 4
    monkeypatch.setattr(key_outer, "_HELD", 3 * row)
    parts = sparse_attention(q, k, v, selection, **shape.packing, scale=0.3)
    # The interpreter's products are those of a BLAS, some of which round a row by its place.
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_slots_of_a_row_may_be_split(monkeypatch, splits):
    monkeypatch.setattr(attention, "way_of", lambda *_: "query_outer")
    monkeypatch.setattr(query_outer, "splits_of", lambda *_: splits)
    shape = Shape((5,), (120,), topk=7)
    q, k, v = shape.main()
    selection = shape.selection()
    selection[1] = -1
    got = sparse_attention(q, k, v, selection, **shape.packing, scale=0.3)
    assert_attends(got, q, k, v, selection, shape.packing, 0.3)


@pytest.mark.parametrize(
    ("programs", "topk", "splits"),
    [(1, 16, 8), (4, 16, 8), (256, 16, 4), (600, 16, 1), (1, 1, 1), (1, 3, 1), (1, 64, 32)],
)
def test_few_programs_are_split(programs, topk, splits):
    assert query_outer.splits_of(programs, topk) == splits


def test_the_way_follows_from_shapes():
    def way(rows, keys):
        shape = Shape((rows,), (keys,), groups=1, share=16, dim=128, block=128)
        q, k, _ = shape.main()
        selection = torch.zeros(rows, 1, 16, dtype=torch.int32)
        return attention.way_of(q, k, selection, 128)

    assert way(512, 512) == "key_outer"
    assert way(1, 4096) == "query_outer"


def test_no_queries(attend):
    shape = Shape((0,), (0,))
    got = attend(*shape.main(), shape.selection(), **shape.packing, scale=1.0)
    assert [tuple(x.shape) for x in got] == [(0, 4, 64), (0, 4)]
