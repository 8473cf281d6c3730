"""Inputs of timed calls: what changes from turn to turn and call to call; nobody may write."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from msa_harness.guard import InputMutatedError
from msa_harness.inputs import InputSets


def strided(value):
    """Every other row of a larger storage, whose gaps hold NaN."""
    whole = torch.full((8, 4), math.nan)
    whole[::2] = value
    return whole[::2]


def make(count=2, vary=("values",), layout=torch.clone):
    sets = [
        {
            "args": [torch.full((4, 4), float(i + 1)), [1, "text"]],
            "kwargs": {"values": layout(torch.full((4, 4), 10.0 * (i + 1)))},
        }
        for i in range(count)
    ]
    return InputSets(sets, "cpu", vary, seed=0)


@pytest.mark.parametrize("between", range(4))
@pytest.mark.parametrize("count", [2, 3])
def test_two_checked_turns_in_succession_have_different_sets(count, between):
    inputs, checked = make(count), []
    for _ in range(5):
        inputs.turn(checked=True)
        checked.append(inputs.fresh().index)
        for _ in range(between):
            inputs.turn()
            inputs.fresh()
    assert all(one != other for one, other in pairwise(checked))


def test_one_set_is_handed_out_again():
    inputs = make(1)
    for _ in range(2):
        inputs.turn(checked=True)
        assert inputs.fresh().index == 0


@pytest.mark.parametrize("layout", [torch.clone, strided])
def test_calls_of_a_turn_share_a_set_and_differ_in_what_varies(layout):
    inputs, seen, addresses = make(layout=layout), [], set()
    for turn in range(3):
        inputs.turn()
        for _ in range(3):
            one = inputs.fresh()
            assert one.index == turn % 2
            plain, values = one.args[0], one.kwargs["values"]
            assert torch.equal(plain, torch.full((4, 4), one.index + 1.0))
            expected = torch.full((4, 4), 10.0 * (one.index + 1)) * one.scale
            assert torch.equal(values, expected)
            assert 0.8 <= one.scale <= 1.25
            inputs.check()
            seen.append(one.scale)
            addresses.add((plain.data_ptr(), values.data_ptr()))
    assert len(set(seen)) == 9
    assert len(addresses) == 1


def write_plain(one):
    one.args[0][1, 1] = 5.0


def write_varied(one):
    one.kwargs["values"][3, 3] += 1.0


def write_gap(one):
    values = one.kwargs["values"]
    values.as_strided((8, 4), (4, 1))[1, 0] = 0.0


def transpose(one):
    one.kwargs["values"].t_()


def move(one):
    one.args[0].set_(one.args[0].clone())


@pytest.mark.parametrize("write", [write_plain, write_varied, write_gap, transpose, move])
def test_what_is_written_or_laid_out_anew_is_found(write):
    inputs = make(layout=strided)
    inputs.turn(checked=True)
    write(inputs.fresh())
    with pytest.raises(InputMutatedError, match="wanted it unchanged"):
        inputs.check()


def test_what_an_earlier_call_of_the_turn_wrote_is_found():
    inputs = make()
    inputs.turn()
    inputs.fresh().args[0].zero_()
    inputs.fresh()
    with pytest.raises(InputMutatedError, match="input storage 0: wanted it unchanged, 32 of 64"):
        inputs.check()
    inputs.turn()
    inputs.fresh()
    inputs.check()  # the next turn starts from the set


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_shifted_is_rounded_in_no_dtype(dtype):
    values = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(dtype)
    sets = [{"args": [values, values.clone()], "kwargs": {}}]
    inputs = InputSets(sets, "cpu", ["0"], 0, shift=["1"])
    powers = set()
    for _ in range(40):
        inputs.turn()
        one = inputs.fresh()
        factor = one.args[1].double() / values.double()
        assert torch.equal(factor, factor[:1].expand_as(factor))
        powers.add(math.log2(float(factor[0])))
        inputs.check()
    assert powers <= set(range(9))
    assert len(powers) > 5
