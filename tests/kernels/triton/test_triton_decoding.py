"""Decoding over a paged cache, and merging of parts."""

from __future__ import annotations

import pytest
import torch
from kernel_batches import Shape, assert_attends

from msa import reference
from msa_kernels.triton_ops import combine, sparse_decode
from msa_kernels.triton_ops.attention import query_outer
from msa_suites.hostile import with_gaps

SHAPES = {
    "one-query": Shape((1, 1, 1), (100, 17, 48), share=4, topk=4),
    "several-queries": Shape((3, 3), (67, 34), groups=1),
    "group-of-16": Shape((2,), (150,), groups=1, share=16, dim=128, block=64, topk=2),
    "block-48": Shape((1, 1), (100, 1), block=48, dim=96),
    "float16": Shape((2, 2), (130, 40), block=32, share=8, dtype=torch.float16),
}


def paged(shape, k, v, spare=3):
    """Pages in any order, NaN wherever no token stands; unused entries of the table are wild."""
    g = shape.generator()
    wide = -(-max(shape.k_lens) // shape.block) + 1
    used = sum(-(-n // shape.block) for n in shape.k_lens)
    free = torch.randperm(used + spare, generator=g).tolist()
    pages = torch.full((2, used + spare, shape.groups, shape.block, shape.dim), torch.nan)
    table = torch.full((len(shape.k_lens), wide), -(2**31), dtype=torch.int32)
    start = 0
    for request, length in enumerate(shape.k_lens):
        for b in range(-(-length // shape.block)):
            page = table[request, b] = free.pop()
            tokens = slice(start + b * shape.block, start + min((b + 1) * shape.block, length))
            count = tokens.stop - tokens.start
            for held, x in zip(pages, (k, v), strict=True):
                held[int(page), :, :count] = x[tokens].transpose(0, 1)
        start += length
    k_pages, v_pages = pages.to(shape.dtype)
    lengths = torch.tensor(shape.k_lens, dtype=torch.int32)
    return (k_pages, v_pages), {"page_table": table, "k_lens": lengths}


@pytest.mark.parametrize("splits", [None, 1], ids=["split", "whole"])
@pytest.mark.parametrize("name", SHAPES)
def test_shuffled_pages(monkeypatch, name, splits):
    if splits:
        monkeypatch.setattr(query_outer, "splits_of", lambda *_: splits)
    shape = SHAPES[name]
    q, k, v = shape.main()
    selection = shape.selection()
    selection[0, 0] = -1
    pages, lengths = paged(shape, k, v)
    queries = shape.q_lens[0]
    out, lse = sparse_decode(
        q.unflatten(0, (-1, queries)), *pages, selection.unflatten(0, (-1, queries)),
        **lengths, scale=shape.scale,
    )  # fmt: skip
    got = out.flatten(0, 1), lse.flatten(0, 1)
    assert_attends(got, q, k, v, selection, shape.packing, shape.scale)


def test_views_with_gaps():
    shape = SHAPES["several-queries"]
    q, k, v = shape.main()
    pages, lengths = paged(shape, k, v)
    given = q.unflatten(0, (2, 3)), *pages, shape.selection().unflatten(0, (2, 3))
    want = sparse_decode(*given, **lengths, scale=0.3)
    strided = torch.full((2, 2), 7, dtype=torch.int32)
    strided[:, 0] = lengths["k_lens"]
    views = {"page_table": with_gaps(lengths["page_table"]), "k_lens": strided[:, 0]}
    got = sparse_decode(*(with_gaps(x) for x in given), **views, scale=0.3)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


class TestCombine:
    @pytest.mark.parametrize("parts", [1, 2, 5])
    def test_parts_that_are_empty_are_not_read(self, parts):
        g = torch.Generator().manual_seed(1)
        outs = torch.randn(parts, 37, 3, 40, generator=g)
        lses = torch.randn(parts, 37, 3, generator=g) * 20
        lses[torch.rand(lses.shape, generator=g) < 0.4] = -torch.inf
        lses[:, ::6] = -torch.inf
        outs[lses == -torch.inf] = torch.nan
        got = combine(outs, lses)
        want = reference.combine(outs, lses)
        assert torch.equal(got[1].isneginf(), want[1].isneginf())
        assert bool(got[1].isneginf().any())
        filled = want[1].isfinite()
        assert bool((got[0][~filled] == 0).all())
        for mine, right in zip(got, want, strict=True):
            error = (mine - right)[filled].abs()
            assert bool((error <= 1e-6 * (1 + right[filled].abs())).all())

    def test_views_with_gaps(self):
        g = torch.Generator().manual_seed(2)
        outs, lses = torch.randn(3, 9, 2, 16, generator=g), torch.randn(3, 9, 2, generator=g)
        got = combine(with_gaps(outs), with_gaps(lses))
        want = combine(outs, lses)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))

    def test_no_rows(self):
        out, lse = combine(torch.zeros(2, 0, 3, 16), torch.zeros(2, 0, 3))
        assert (out.shape, lse.shape) == ((0, 3, 16), (0, 3))


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_nan_that_is_read_is_passed_on_however_the_slots_are_split(monkeypatch, splits):
    monkeypatch.setattr(query_outer, "splits_of", lambda *_: splits)
    shape = Shape((1,), (64,), groups=1, share=1, dim=16, topk=4)
    q, k, v = shape.main()
    k[3] = torch.nan
    pages, lengths = paged(shape, k, v)
    selection = torch.tensor([[[[0, 1, 2, 3]]]], dtype=torch.int32)
    out, lse = sparse_decode(q[None], *pages, selection, **lengths, scale=shape.scale)
    assert out.isnan().all()
    assert lse.isnan().all()


def test_a_part_of_nan_is_not_taken_for_an_empty_one():
    out, lse = combine(torch.ones(2, 1, 1, 16), torch.tensor([[[torch.nan]], [[0.0]]]))
    assert out.isnan().all()
    assert lse.isnan().all()
