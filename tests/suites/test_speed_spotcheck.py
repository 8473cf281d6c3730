"""Sampled rows of a timed output: right ones pass, wrong ones do not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from msa import fast
from msa_harness.client import Timing
from msa_harness.inputs import InputSets
from msa_suites.case import Case
from msa_suites.inputs import make_inputs
from msa_suites.speed import spotcheck, suite
from msa_suites.speed.series import SpeedSeries
from msa_suites.speed.spotcheck import Pipeline

CASE = Case("spot", (300,), (300,), Hq=4, Hkv=2, D=32, Di=32, block=16, topk=4, seed=3)
# As many queries, in chunks of sequences of unlike lengths; the second has no queries.
BATCH = replace(
    CASE, q_lens=(203, 0, 97), k_lens=(311, 40, 150), topk=6, local_blocks=2, sink_blocks=1
)
ROWS = spotcheck.sampled_rows(CASE, 12)


def answer(case):
    inputs = make_inputs(case)
    lengths = {"cu_q": inputs.cu_q, "cu_k": inputs.cu_k}
    scales = {"scale": case.scale, "index_scale": case.index_scale}
    given = Pipeline(*inputs.tensors, case)
    return given, *fast.attend(*inputs.tensors, **lengths, **case.settings, **scales)


@pytest.fixture(params=[CASE, BATCH], ids=["one", "batch"])
def answered(request):
    return answer(request.param)


def test_the_ends_of_every_sequence_are_among_the_rows():
    assert {0, 202, 203, 299} <= set(spotcheck.sampled_rows(BATCH, 1))
    with pytest.raises(IndexError, match="row: wanted one below 300, got 300"):
        Pipeline(*make_inputs(BATCH).tensors, BATCH).context(300)


def test_another_sequence_and_a_missing_forced_block_are_noticed():
    given, out, selection = answer(BATCH)
    swapped = out.clone()
    swapped[203:] = out[:97]  # the second sequence answered with the first's
    assert "row 203" in spotcheck.check_pipeline(given, swapped, selection, [203])
    for block in (0, int(selection[202, 0].max()) - 1):  # the sink, the older local block
        other = selection.clone()
        free = min(set(range(20)) - set(other[202, 0].tolist()))
        other[202, 0][other[202, 0] == block] = free
        said = spotcheck.check_selection(given, other, [202])
        assert f"wanted the forced block {block}, got" in said


def test_a_right_answer_passes(answered):
    given, out, selection = answered
    assert spotcheck.check_pipeline(given, out, selection, ROWS) == ""
    assert spotcheck.check_pipeline(given, out, None, ROWS) == ""
    assert spotcheck.check_selection(given, selection, ROWS) == ""


def test_wrong_answers_do_not(answered):
    given, out, selection = answered
    assert "relative error" in spotcheck.check_pipeline(given, out * 0, selection, ROWS)
    assert "relative error" in spotcheck.check_pipeline(given, out * 1.001, selection, ROWS)
    assert "wanted" in spotcheck.check_pipeline(given, out.double(), selection, ROWS)
    shared = selection[:, :1].expand_as(selection)
    assert "selection" in spotcheck.check_selection(given, shared, ROWS)
    assert "distinct" in spotcheck.check_selection(given, torch.zeros_like(selection), ROWS)


def test_values_in_another_scale_are_noticed(answered):
    given, out, selection = answered
    # An answer kept from a call with other values.
    stale = spotcheck.check_pipeline(given, out, selection, ROWS, value_scale=2.0)
    assert "relative error" in stale


def test_a_row_that_is_wrong_is_named_and_a_near_tie_is_not_wrong(answered):
    given, out, selection = answered
    spoiled = out.clone()
    spoiled[ROWS[5]] *= 1.01
    assert f"row {ROWS[5]}, group 0" in spotcheck.check_pipeline(given, spoiled, selection, ROWS)
    spoiled[ROWS[5]] = torch.nan
    assert f"row {ROWS[5]}, group 0" in spotcheck.check_pipeline(given, spoiled, selection, ROWS)
    last = selection.clone()  # the same blocks in another order
    last[-1] = last[-1].flip(-1)
    assert spotcheck.check_pipeline(given, out, last, ROWS) == ""


@pytest.mark.parametrize("row", [0, 299])
def test_a_single_row_is_checked(answered, row):
    given, out, selection = answered
    for _ in range(2):  # what is kept of the first check serves the second
        assert spotcheck.check_pipeline(given, out, selection, [row]) == ""
        assert "error" in spotcheck.check_pipeline(given, out * 1.001, selection, [row])


@pytest.mark.parametrize(
    "selection", [torch.zeros(1, dtype=torch.int32), torch.zeros(300, 2, 3), "none", 5]
)
def test_a_selection_that_is_none_is_said_to_be_none(answered, selection):
    given, out, _ = answered
    wanted = r"selection: wanted torch.int32 or torch.int64 \[300, 2, \d\], got "
    for said in (
        spotcheck.check_pipeline(given, out, selection, ROWS),
        spotcheck.check_selection(given, selection, ROWS),
    ):
        assert re.match(wanted, said)
    assert "out: wanted torch.float32" in spotcheck.check_pipeline(given, None, None, ROWS)
    assert "scores: wanted torch.float32" in spotcheck.check_scores(given, selection, ROWS, 1.0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("operation", ["attend", "sparse_decode", "select_blocks"])
def test_what_varies_from_call_to_call_is_answered_right_in_every_dtype(operation, dtype):
    # So many small blocks that rounding index queries anew changes what is selected.
    case = replace(CASE, dtype=dtype, q_lens=(900,), k_lens=(900,), block=4, topk=32)
    if operation == "sparse_decode":
        case = replace(case, q_lens=(1,))
    timed = suite._timed(SpeedSeries("speed/x", operation, case), together=False)
    sets = InputSets(list(map(dict, timed.inputs())), "cpu", timed.vary, 0, shift=timed.shift)
    for _ in range(6):
        sets.turn(checked=True)
        for _ in range(2):
            one = sets.fresh()
            output = getattr(fast, operation)(*one.args, **one.kwargs)
        assert timed.check(Timing((1.0,), output, one.index, one.scale)) == ""
        sets.check()
