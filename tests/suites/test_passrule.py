"""The pass rule: what it lets through and what it never does."""

import pytest
import torch

from msa_suites.correctness.passrule import RELATIVE_L2, compare

# Attention rows of a long context are small: rms 0.0075.
TRUTH = torch.randn(64, 4, 32, generator=torch.Generator().manual_seed(0)).double() * 0.0075
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def rounded(dtype):
    return TRUTH.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_passes(dtype):
    assert compare(rounded(dtype), TRUTH, eager=rounded(dtype), dtype=dtype) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_fail_even_beside_a_bad_eager_run(dtype):
    zeros = torch.zeros_like(TRUTH)
    assert compare(zeros, TRUTH, eager=rounded(dtype), dtype=dtype) is not None
    assert compare(zeros, TRUTH, eager=TRUTH * 3, dtype=dtype) is not None


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_wrong_row_fails_and_is_named(dtype):
    got = rounded(dtype).clone()
    got[17, 2] = got[18, 2]
    wrong = compare(got, TRUTH, eager=rounded(dtype), dtype=dtype)
    assert wrong is not None
    assert wrong.first[:2] == (17, 2)
    assert wrong.share == pytest.approx(1 / 256)
    assert wrong.rows.nonzero().tolist() == [[17, 2]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_common_factor_fails(dtype):
    got = (TRUTH * (1 + 3 * RELATIVE_L2[dtype] + 1e-4)).to(torch.float64)
    assert compare(got, TRUTH, eager=rounded(dtype), dtype=dtype) is not None


def test_nan_and_infinity_must_stand_where_they_should():
    truth = torch.tensor([[0.5, -torch.inf], [1.0, 2.0]], dtype=torch.float64)
    right = truth.float()
    assert compare(right, truth, eager=right, dtype=torch.float32) is None
    for place, value in (((0, 0), torch.nan), ((0, 1), -1e30), ((1, 1), torch.inf)):
        got = right.clone()
        got[place] = value
        wrong = compare(got, truth, eager=right, dtype=torch.float32)
        assert wrong is not None
        assert wrong.first == place


def test_rows_that_are_left_out_are_not_compared():
    got = TRUTH.float().clone()
    got[3] = torch.nan
    rows = torch.ones(64, 4, dtype=torch.bool)
    assert compare(got, TRUTH, eager=TRUTH, dtype=torch.float32, rows=rows) is not None
    rows[3] = False
    assert compare(got, TRUTH, eager=TRUTH, dtype=torch.float32, rows=rows) is None
    assert compare(got, TRUTH, eager=TRUTH, dtype=torch.float32, rows=~rows & False) is None
