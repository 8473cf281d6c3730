"""Judging selections: each rule on its own, and freedom exactly where scores are close."""

import pytest
import torch

from msa import reference
from msa_suites.cases import case_named
from msa_suites.correctness.margins import Geometry, clear_rows, judge_selection, score_tolerance
from msa_suites.inputs import make_inputs

CASE = case_named("sink-1")  # 300 queries, block 16, k 3, one sink
INPUTS = make_inputs(CASE)
LENGTHS = {"cu_q": INPUTS.cu_q, "cu_k": INPUTS.cu_k}
SCORES = reference.block_scores(
    INPUTS.q_idx, INPUTS.k_idx, block=CASE.block, scale=CASE.index_scale, **LENGTHS
)
RIGHT = reference.select_blocks(SCORES, **LENGTHS, **CASE.settings)
GEOMETRY = Geometry.of(CASE, INPUTS)
ZERO = torch.zeros(RIGHT.shape[:2], dtype=torch.float64)


def judge(ids, *, row=200, group=1, scores=SCORES, tolerance=ZERO):
    got = RIGHT.clone()
    got[row, group] = torch.tensor(ids, dtype=torch.int32)
    return judge_selection(got, scores, GEOMETRY, tolerance)


def test_the_right_one_passes_in_any_order():
    assert judge_selection(RIGHT, SCORES, GEOMETRY, ZERO) is None
    used = RIGHT[200, 1].tolist()
    assert judge(used[::-1]) is None


@pytest.mark.parametrize(
    ("ids", "what"),
    [
        ([0, 5, -2], "below -1"),
        ([0, 12, 99], "above the last block"),
        ([0, 12, 12], "twice"),
        ([0, -1, 12], "packed to the left"),
        ([0, 12, 13], "future"),
        ([0, 3, 4], "local block is missing"),
        ([12, 3, 4], "forced block is missing"),
        ([0, 12, -1], "wrong number"),
    ],
)
def test_each_rule_is_named_with_its_place(ids, what):
    wrong = judge(ids)  # row 200 stands in block 12
    assert wrong is not None
    assert what in wrong.what
    assert wrong.first == (200, 1)


def test_a_worse_block_fails_unless_the_scores_are_close():
    free = [b for b in range(1, 12) if b not in RIGHT[200, 1].tolist()]
    ids = [0, free[0], 12]
    wrong = judge(ids)
    assert wrong is not None
    assert "scores higher" in wrong.what
    assert judge(ids, tolerance=ZERO + 100) is None


def test_rows_are_clear_unless_two_blocks_tie():
    tolerance = score_tolerance(CASE, INPUTS)
    assert float(tolerance.max()) < 1e-4
    assert bool(clear_rows(SCORES, RIGHT, GEOMETRY, tolerance).all())
    tied = SCORES.clone()
    tied[200, 1, 1:12] = 0.5
    chosen = reference.select_blocks(tied, **LENGTHS, **CASE.settings)
    clear = clear_rows(tied, chosen, GEOMETRY, tolerance)
    assert (~clear).nonzero().tolist() == [[200, 1]]
    assert judge([0, 7, 12], scores=tied) is None


def test_inexact_scores_widen_the_tolerance():
    exact, wide = (score_tolerance(CASE, INPUTS, exact=e) for e in (True, False))
    assert bool((wide > 1000 * exact).all())


def test_rows_can_be_left_out():
    got = RIGHT.clone()
    got[200, 1] = 0
    rows = torch.ones(RIGHT.shape[:2], dtype=torch.bool)
    rows[200, 1] = False
    assert judge_selection(got, SCORES, GEOMETRY, ZERO) is not None
    assert judge_selection(got, SCORES, GEOMETRY, ZERO, rows=rows) is None
