"""Scores of a cache and whole decode steps, on hostile page tables and lengths."""

from __future__ import annotations

import pytest
import torch

from msa import reference
from msa_kernels.triton_ops import attend_paged, paged_block_scores
from msa_suites.hostile import with_gaps

#: queries, lengths, groups, heads a group, D, Di, block, index heads.
SHAPES = {
    "one-query": (1, (40, 1, 16), 2, 2, 64, 32, 16, 1),
    "drafts-across-a-border": (5, (17, 37, 5), 3, 1, 48, 80, 16, 1),
    "many-rows": (16, (100, 33), 5, 2, 32, 16, 32, 1),
    "own-keys": (3, (70, 21), 3, 2, 32, 48, 16, 3),
    "no-power-of-two": (2, (150, 48, 49), 2, 3, 80, 32, 48, 1),
    "block-128": (1, (300,), 4, 4, 32, 128, 128, 1),
}


def drawn(name, dtype=torch.float32, seed=0):
    """Tensors of ``attend_paged`` and its pages: shuffled, NaN where no token stands."""
    queries, lengths, groups, share, dim, index_dim, block, index_heads = SHAPES[name]
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(len(lengths), queries, groups * share, dim, generator=g)
    q_idx = torch.randn(len(lengths), queries, groups, index_dim, generator=g)
    counts = [-(-n // block) for n in lengths]
    order = (torch.randperm(sum(counts), generator=g) + 1).tolist()
    stores = [
        torch.full((sum(counts) + 2, heads, block, size), torch.nan)
        for heads, size in ((groups, dim), (groups, dim), (index_heads, index_dim))
    ]
    # Unused entries are no pages at all: whoever looks one up reads far outside.
    table = torch.full((len(lengths), max(counts) + 3), 2**30, dtype=torch.int32)
    for b, length in enumerate(lengths):
        for at in range(counts[b]):
            table[b, at] = order.pop()
            held = min(block, length - at * block)
            for store in stores:
                heads, _, size = store.shape[1:]
                store[table[b, at], :, :held] = torch.randn(heads, held, size, generator=g)
    tensors = tuple(x.to(dtype) for x in (q, q_idx, *stores))
    return tensors, {"page_table": table, "k_lens": torch.tensor(lengths, dtype=torch.int32)}


def assert_scores(tensors, pages, scale=0.2):
    got = paged_block_scores(tensors[1], tensors[4], **pages, scale=scale)
    exact = [tensors[1].double(), tensors[4].double()]
    right = reference.paged_block_scores(*exact, **pages, scale=scale)
    assert (got.shape, got.dtype) == (right.shape, torch.float32)
    assert torch.equal(got.isneginf(), right.isneginf())
    assert torch.allclose(got.nan_to_num(), right.nan_to_num(), rtol=0, atol=1e-5)
    return got


@pytest.mark.parametrize("name", SHAPES)
def test_scores_of_hostile_shapes(name):
    assert_scores(*drawn(name))


@pytest.mark.parametrize("scale", [0.0, -0.3])
def test_a_scale_of_zero_and_below(scale):
    tensors, pages = drawn("drafts-across-a-border")
    assert_scores(tensors, pages, scale)


def test_float16_scores():
    assert_scores(*drawn("many-rows", torch.float16))


@pytest.mark.parametrize(("local", "sinks"), [(1, 0), (2, 1)])
@pytest.mark.parametrize("name", SHAPES)
def test_whole_steps(name, local, sinks):
    tensors, pages = drawn(name)
    settings = {"topk": 3, "local_blocks": local, "sink_blocks": sinks}
    settings |= {"scale": 0.2, "index_scale": 0.3}
    out, selection = attend_paged(*tensors, **pages, **settings)
    right, chosen = reference.attend_paged(*tensors, **pages, **settings)
    assert torch.equal(selection, chosen)
    assert torch.allclose(out, right, rtol=0, atol=2e-6)


def test_lengths_and_pages_that_change_in_place_are_followed():
    # As a captured graph has it: the same tensors, other contents.
    (q, q_idx, *stores), pages = drawn("one-query")
    settings = {"topk": 2, "scale": 0.2, "index_scale": 0.3}
    pages["k_lens"].copy_(torch.tensor([16, 1, 7]))
    swapped = pages["page_table"][0, :1].clone()
    pages["page_table"][0, :1] = pages["page_table"][2, :1]
    pages["page_table"][2, :1] = swapped
    out, selection = attend_paged(q, q_idx, *stores, **pages, **settings)
    right, chosen = reference.attend_paged(q, q_idx, *stores, **pages, **settings)
    assert torch.equal(selection, chosen)
    assert torch.allclose(out, right, rtol=0, atol=2e-6)


def test_strides_are_followed():
    tensors, pages = drawn("own-keys")
    want = attend_paged(*tensors, **pages, topk=3, scale=0.2, index_scale=0.3)
    wide = [with_gaps(x) for x in tensors]
    gapped = {"page_table": with_gaps(pages["page_table"]), "k_lens": pages["k_lens"]}
    got = attend_paged(*wide, **gapped, topk=3, scale=0.2, index_scale=0.3)
    for mine, right in zip(got, want, strict=True):
        assert torch.equal(mine, right)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k_lens": torch.tensor([0, 1, 16], dtype=torch.int32)}, "k_lens: wanted 1 to .* got 0"),
        ({"k_lens": torch.tensor([40, 1], dtype=torch.int32)}, "k_lens: wanted int32"),
        ({"page_table": torch.full((3, 6), -1, dtype=torch.int32)}, "page_table: wanted pages 0"),
        ({"page_table": torch.full((3, 6), 99, dtype=torch.int32)}, "page_table: wanted pages 0"),
        ({"topk": 0}, "topk"),
        ({"scale": float("nan")}, "^scale"),
        ({"index_scale": float("inf")}, "^index_scale"),
        ({"page_table": torch.zeros((3, 0), dtype=torch.int32)}, "page_table: wanted at least one"),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    tensors, pages = drawn("one-query")
    given = {**pages, "topk": 2, "scale": 0.2, "index_scale": 0.3}
    for run in (attend_paged, reference.attend_paged):
        with pytest.raises((ValueError, TypeError), match=words):
            run(*tensors, **given | change)


def test_a_query_of_nan_is_refused():
    tensors, pages = drawn("one-query")
    given = {**pages, "topk": 2, "scale": 0.2, "index_scale": 0.3}
    for at, name in enumerate(("q", "q_idx")):
        spoilt = list(tensors)
        spoilt[at] = torch.full_like(spoilt[at], torch.nan)
        for run in (attend_paged, reference.attend_paged):
            with pytest.raises(ValueError, match=f"^{name}: "):
                run(*spoilt, **given)


def test_an_index_cache_of_other_pages_is_refused():
    tensors, pages = drawn("one-query")
    given = {**pages, "topk": 2, "scale": 0.2, "index_scale": 0.3}
    for wrong in (tensors[4][:-1], tensors[4][:, :, :8]):
        for run in (attend_paged, reference.attend_paged):
            with pytest.raises(ValueError, match=r"index_pages: wanted .* pages of 16 tokens"):
                run(*tensors[:4], wrong, **given)
