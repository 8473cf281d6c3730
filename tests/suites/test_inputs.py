"""Inputs of a case: the same bits every time, and hostile where they are meant to be."""

import dataclasses
import math

import pytest
import torch

from msa import reference
from msa_suites.cases import case_named
from msa_suites.correctness.margins import as_mask
from msa_suites.correctness.variants import VARIANTS
from msa_suites.hostile import page_cache, poison_unread, with_gaps
from msa_suites.inputs import make_inputs, measured_overlap, selection_overlap


def test_the_seed_decides_every_bit():
    case = case_named("bfloat16")
    torch.manual_seed(1)
    first = make_inputs(case)
    torch.manual_seed(2)
    again, other = make_inputs(case), make_inputs(case, seed=case.seed + 1)
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, again.tensors, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.tensors, other.tensors, strict=True))
    assert {x.dtype for x in first.tensors} == {torch.bfloat16}


def test_overlap_is_low_or_high_as_asked():
    low, high = (
        dataclasses.replace(
            case_named("prefill-8192-low"), overlap=overlap, q_lens=(3000,), k_lens=(8192,)
        )
        for overlap in ("low", "high")
    )
    shares = [measured_overlap(case, make_inputs(case)) for case in (low, high)]
    assert shares[0] < 0.55
    assert shares[1] > 0.85
    decode = case_named("decode-4096-low")
    assert math.isnan(measured_overlap(decode, make_inputs(decode)))


def test_selection_overlap_counts_free_choices_only():
    selection = torch.tensor([[[0, 1, 4]], [[0, 2, 4]], [[0, 2, 4]]], dtype=torch.int32)
    lengths = {"cu_q": torch.tensor([0, 3]), "cu_k": torch.tensor([0, 20])}
    # Positions 17 to 19 in block 4 of 4 tokens: 0 is kept, 1 is not, then both of 0 and 2.
    assert selection_overlap(selection, block=4, **lengths) == pytest.approx(3 / 4)


def test_unread_slots_are_nan_and_read_ones_are_not():
    case = case_named("chunk-inside-block")
    x = make_inputs(case)
    lengths = {"cu_q": x.cu_q, "cu_k": x.cu_k}
    scores = reference.block_scores(x.q_idx, x.k_idx, block=16, scale=1.0, **lengths)
    selection = reference.select_blocks(scores, **lengths, **case.settings)
    selection[:, 0, 1:] = -1
    poisoned = poison_unread(x, selection, case.block)
    assert poisoned.k.isnan().any()
    assert not x.k.isnan().any()
    out, _ = reference.sparse_attention(
        poisoned.q, poisoned.k, poisoned.v, selection, block=16, scale=1.0, **lengths
    )
    plain, _ = reference.sparse_attention(x.q, x.k, x.v, selection, block=16, scale=1.0, **lengths)
    assert torch.equal(out, plain)


def test_pages_are_shuffled_and_nan_elsewhere():
    case = case_named("decode")
    x = make_inputs(case)
    cache = page_cache(x, case.block)
    used = sum(-(-n // case.block) for n in case.k_lens)
    assert len(cache.k_pages) == used + 2
    assert cache.k_pages[0].isnan().all()
    assert cache.v_pages[-1].isnan().all()
    table = cache.page_table[0, : -(-1000 // 16)]
    assert not torch.equal(table, table.sort().values)
    assert int((~cache.k_pages.isnan()).sum()) == x.k.numel()
    rows = cache.k_pages[table.long()].transpose(1, 2).flatten(0, 1)[:1000]
    assert torch.equal(rows, x.k[:1000])


@pytest.mark.parametrize(
    "x",
    [torch.randn(5, 4, 8), torch.randn(3, 2, 4, 8), torch.arange(12, dtype=torch.int32).view(3, 4)],
)
def test_views_with_gaps_hold_the_values(x):
    view = with_gaps(x)
    assert torch.equal(view, x)
    assert not view.is_contiguous()
    assert view.stride(-1) == 1


def test_variants_do_what_they_say():
    case = case_named("lengths-127-128-129")
    x = make_inputs(case)
    lengths = {"cu_q": x.cu_q, "cu_k": x.cu_k}

    def scores(name):
        y = VARIANTS[name](case, x)
        return reference.block_scores(y.q_idx, y.k_idx, block=16, scale=1.0, **lengths)

    assert scores("negative").max() < 0
    assert len(scores("ties").unique()) < 12
    falling = scores("lowest_local")
    finite = falling[100, 0, : 100 // 16 + 1]
    assert bool((finite.diff() < 0).all())
    large = VARIANTS["large"](case, x)
    logits = torch.einsum("hd,hd->h", large.q[0], large.k[0].repeat_interleave(2, 0)) * case.scale
    assert logits.min() > 88
    assert VARIANTS["own_keys"](case, x).k_idx.shape == (384, 2, 32)
    assert as_mask(torch.tensor([[[2, -1]]], dtype=torch.int32), 3).tolist() == [
        [[False, False, True]]
    ]
