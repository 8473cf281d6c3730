from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa import cost
from msa.cost import CostShape

PAPER = CostShape()


def test_headline_ratios_of_the_paper():
    ratios = {row.length: row.ratio for row in cost.cost_rows(PAPER, [4096, 32768, 131072, 2**20])}
    assert ratios[4096] == pytest.approx(0.970, abs=5e-4)
    assert ratios[32768] == pytest.approx(6.4, abs=5e-4)
    assert ratios[131072] == pytest.approx(16.0, abs=5e-4)
    assert ratios[2**20] == pytest.approx(28.444, abs=5e-4)
    assert PAPER.ceiling == 32
    assert round(PAPER.break_even) == 4228


def test_half_the_index_dim_gives_fifty():
    (row,) = cost.cost_rows(CostShape(index_dim=64), [2**20])
    assert row.ratio == pytest.approx(51.2)


def test_exact_causal_ratios():
    rows = cost.cost_rows(PAPER, [4096, 32768, 131072])
    assert [round(row.exact_ratio, 3) for row in rows][:2] == [1.306, 6.725]
    assert rows[2].exact_ratio == pytest.approx(16.31, abs=5e-3)


def test_decode_ceilings_at_a_million():
    (half,) = cost.cost_rows(PAPER, [2**20])
    (byte,) = cost.cost_rows(CostShape(index_element_bytes=1), [2**20])
    assert half.decode_ratio == pytest.approx(7.9, abs=0.05)
    assert byte.decode_ratio == pytest.approx(15.5, abs=0.1)
    # NVFP4: half a byte and a sixteenth of a byte of scale.
    (nibble,) = cost.cost_rows(CostShape(index_element_bytes=0.5 + 1 / 16), [2**20])
    attended = 4 * 128 * 2 * 2 * 2048
    assert nibble.decode_ratio == 4 * 128 * 2 * 2 * 2**20 / (0.5625 * 128 * 2**20 + attended)


@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 6))
def test_closed_forms_equal_the_sums(length, block, topk):
    pairs = sum(cost.attended_tokens(p, block=block, topk=topk) for p in range(length))
    assert cost.attended_pairs(length, block=block, topk=topk) == pairs
    assert cost.blocks_scored(length, block) == sum(p // block + 1 for p in range(length))


@given(st.integers(1, 2048))
def test_nothing_is_skipped_up_to_the_budget(length):
    assert cost.attended_pairs(length, block=128, topk=16) == cost.scored_pairs(length)


def test_roofline_takes_the_larger_floor():
    line = cost.roofline(1e12, 1e9, flops_per_second=1e12, bytes_per_second=1e10)
    assert (line.seconds, line.bound) == (1.0, "compute")
    line = cost.roofline(1e9, 1e12, flops_per_second=1e12, bytes_per_second=1e11)
    assert (line.seconds, line.bound) == (10.0, "memory")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: CostShape(topk=0), "topk: wanted an int above 0, got int 0"),
        (lambda: CostShape(element_bytes=0), "element_bytes: wanted a number above 0, got 0"),
        (lambda: CostShape(index_element_bytes=-1.5), "wanted a number above 0, got -1.5"),
        (lambda: CostShape(element_bytes="2"), "element_bytes: wanted a finite number, got str"),
        (lambda: CostShape(q_heads=6, kv_heads=4), "multiple of k's 4, got 6"),
        (lambda: cost.cost_rows(PAPER, [0]), "lengths: wanted an int above 0"),
        (
            lambda: cost.roofline(1, 1, flops_per_second=0, bytes_per_second=1),
            "flops_per_second: wanted a rate above 0, got 0",
        ),
    ],
)
def test_bad_input_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        call()
