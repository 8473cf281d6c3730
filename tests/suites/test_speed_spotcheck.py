"""Sampled rows of a timed output: right ones pass, wrong ones do not."""

from __future__ import annotations

import pytest
import torch

from msa import fast
from msa_suites.case import Case
from msa_suites.inputs import make_inputs
from msa_suites.speed import spotcheck
from msa_suites.speed.spotcheck import Pipeline

CASE = Case("spot", (300,), (300,), Hq=4, Hkv=2, D=32, Di=32, block=16, topk=4, seed=3)
ROWS = spotcheck.sampled_rows(300, 12, 0)


@pytest.fixture
def answered():
    inputs = make_inputs(CASE)
    given = Pipeline(*inputs.tensors, CASE.block, CASE.topk)
    lengths = {"cu_q": inputs.cu_q, "cu_k": inputs.cu_k}
    scales = {"scale": CASE.scale, "index_scale": CASE.index_scale}
    return given, *fast.attend(*inputs.tensors, **lengths, **CASE.settings, **scales)


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
