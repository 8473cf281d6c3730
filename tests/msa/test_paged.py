"""Scores of a cache and decode steps: as packed sequences, and refused in words."""

from __future__ import annotations

import pytest
import torch

from msa import fast, reference
from msa.packing import cumulative

B, Q, BLOCK = 3, 2, 4
LENGTHS = (9, 2, 12)


def arguments(seed=0):
    g = torch.Generator().manual_seed(seed)
    table = torch.randperm(9, generator=g).view(3, 3).int()
    return {
        "q": torch.randn(B, Q, 4, 8, generator=g),
        "q_idx": torch.randn(B, Q, 2, 4, generator=g),
        "k_pages": torch.randn(9, 2, BLOCK, 8, generator=g),
        "v_pages": torch.randn(9, 2, BLOCK, 8, generator=g),
        "index_pages": torch.randn(9, 1, BLOCK, 4, generator=g),
        "page_table": table,
        "k_lens": torch.tensor(LENGTHS, dtype=torch.int32),
        "topk": 2,
        "scale": 0.3,
        "index_scale": 0.4,
    }


def packed(pages, table):
    """``[Tk, H, d]`` of all requests."""
    rows = (pages[table[b].long()].transpose(1, 2).flatten(0, 1)[:n] for b, n in enumerate(LENGTHS))
    return torch.cat(list(rows))


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize("seed", range(4))
def test_a_step_over_pages_is_that_over_packed_sequences(implementation, seed):
    given = arguments(seed)
    out, selection = implementation.attend_paged(**given)
    table = given["page_table"]
    k, v, k_idx = (packed(given[name], table) for name in ("k_pages", "v_pages", "index_pages"))
    lengths = {"cu_q": cumulative([Q] * B), "cu_k": cumulative(list(LENGTHS)), "block": BLOCK}
    settings = {name: given[name] for name in ("topk", "scale", "index_scale")}
    flat = given["q"].flatten(0, 1), given["q_idx"].flatten(0, 1)
    wanted, chosen = implementation.attend(flat[0], k, v, flat[1], k_idx, **lengths, **settings)
    assert torch.equal(selection.flatten(0, 1), chosen)
    torch.testing.assert_close(out.flatten(0, 1), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", [reference, fast])
def test_an_infinite_key_that_nobody_sees_changes_nothing(implementation):
    given = arguments()
    out, selection = implementation.attend_paged(**given)
    for name in ("k_pages", "v_pages", "index_pages"):
        pages = given[name].clone()
        for b, length in enumerate(LENGTHS):
            for slot in range(length, 3 * BLOCK):
                pages[given["page_table"][b, slot // BLOCK], :, slot % BLOCK] = torch.nan
        given[name] = pages
    again, same = implementation.attend_paged(**given)
    assert torch.equal(selection, same)
    assert torch.equal(out, again)


REFUSED = [
    ({"q": torch.zeros(B, Q, 3, 8)}, "q: wanted a number of heads that is a multiple of k's 2"),
    ({"q_idx": torch.zeros(B, Q, 3, 4)}, r"q_idx: wanted shape \[3, 2, 2, Di\]"),
    ({"v_pages": torch.zeros(9, 2, BLOCK, 7)}, r"v_pages: wanted shape \[9, 2, 4, 8\]"),
    ({"index_pages": torch.zeros(9, 1, 5, 4)}, "index_pages: wanted 9 pages of 4 tokens"),
    ({"index_pages": torch.zeros(8, 1, BLOCK, 4)}, "index_pages: wanted 9 pages of 4 tokens"),
    (
        {"page_table": torch.zeros(B, 0, dtype=torch.int32)},
        "page_table: wanted at least one column",
    ),
    ({"page_table": torch.full((B, 3), 9, dtype=torch.int32)}, "page_table: wanted pages 0 to 8"),
    ({"k_lens": torch.tensor([9, 1, 12], dtype=torch.int32)}, "k_lens: wanted 2 to 12 keys"),
    ({"k_lens": torch.tensor([9, 2, 13], dtype=torch.int32)}, "k_lens: wanted 2 to 12 keys"),
    ({"k_lens": torch.tensor([9, 2, 12])}, r"k_lens: wanted int32 \[3\]"),
    ({"topk": 0}, "topk: wanted an int above 0"),
    ({"sink_blocks": 2}, "topk: wanted at least the 1 local"),
    ({"scale": float("inf")}, "scale: wanted a finite number"),
    ({"index_scale": "1"}, "index_scale: wanted a finite number"),
    ({"q": torch.full((B, Q, 4, 8), torch.nan)}, "q: wanted finite values"),
    ({"q_idx": torch.full((B, Q, 2, 4), torch.inf)}, "q_idx: wanted finite values"),
]


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_wrong_arguments_are_named(implementation, change, words):
    with pytest.raises((TypeError, ValueError), match=words):
        implementation.attend_paged(**arguments() | change)


OF_PAGES = [(change, words) for change, words in REFUSED if {"page_table", "k_lens"} & set(change)]


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize(("change", "words"), OF_PAGES)
def test_scores_refuse_the_same_pages_and_lengths(implementation, change, words):
    given = arguments()
    right = {name: given[name] for name in ("q_idx", "index_pages", "page_table", "k_lens")}
    implementation.paged_block_scores(**right, scale=0.4)
    with pytest.raises((TypeError, ValueError), match=words):
        implementation.paged_block_scores(**right | change, scale=0.4)
