"""The floors of the pipelined kernels, against numbers worked out by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa.cost import CostShape
from msa_suites import cli
from msa_suites.speed.predicting import DEVICES, Device, predictions

SHAPE = CostShape()
#: Where everything takes a second a unit.
SLOW = Device(1.0, 1.0, 1.0, 1.0, 1.0)


def budget(kernel, length, shape=SHAPE):
    found = {one.kernel: one for one in predictions(shape, [length], SLOW)}
    return found[kernel].budget


def test_the_work_of_one_block_of_queries():
    """128 tokens, 64/4 heads: all attend one block, whose causal half counts as pairs."""
    scores = budget("prefill: score_blocks", 128)
    assert scores["tensor"] == 2 * 128 * 4 * 128 * 128  # 512 rows of queries and groups, 128 keys
    assert scores["copies"] == 4 * 128 * 128 * 2  # four tiles, each with the block's keys
    assert scores["memory"] == 4 * 4 * 128 + 128 * 128 * (4 * 2 + 2)
    pairs = 64 * 128 * 129 // 2
    attention = budget("prefill: attend_units", 128)
    assert attention["exponentials"] == pairs
    assert attention["tensor"] == 4 * pairs * 128


def test_a_decode_step_reads_its_pages_and_the_index_keys():
    pages = budget("decode: attend_pages", 1 << 20)
    assert pages["copies"] == 4 * 16 * 128 * 128 * 2 * 2  # groups, slots, tokens, D, K and V
    assert budget("decode: score_blocks", 1 << 20)["memory"] == (1 << 20) * 128 * 2
    assert budget("decode: attend_pages", 256)["copies"] == pages["copies"] / 8  # two blocks


def test_a_cache_below_sixteen_bits_is_widened_and_reads_less():
    narrow = CostShape(element_bytes=0.5625, index_element_bytes=0.5625)  # NVFP4 and its scales
    length, keys = 1 << 20, 128 * 128  # of a block
    for kernel, elements in {
        "prefill: score_blocks": 4 * keys,  # as above, of one block of queries
        "prefill: attend_units": 2 * keys * 64 * 129 / 2 / (128 * 16),
        "decode: score_blocks": keys,
        "decode: attend_pages": 2 * 4 * keys,
    }.items():
        wide, packed = (budget(kernel, 128, shape) for shape in (SHAPE, narrow))
        assert packed["operations"] - wide["operations"] == pytest.approx(elements)
        assert packed["tensor"] == wide["tensor"]
        assert packed["copies"] < wide["copies"]
    read = budget("decode: score_blocks", length, narrow)["memory"]
    assert read == length * 128 * 0.5625


@given(
    st.sampled_from(sorted(DEVICES)),
    st.sampled_from([4096, 32768, 131072]),
    st.sampled_from([64, 128]),
    st.sampled_from([1.0, 2.0]),
)
def test_the_prediction_is_the_longest_floor_and_grows(device, length, dim, size):
    shape = CostShape(dim=dim, index_dim=dim, element_bytes=size, index_element_bytes=size)
    once, twice = (
        {one.kernel: one for one in predictions(shape, [n], DEVICES[device])}
        for n in (length, 2 * length)
    )
    for name, one in once.items():
        assert one.seconds == max(one.budget.values()) == one.budget[one.bound]
        assert twice[name].seconds >= one.seconds > 0


def test_a_million_tokens_are_bound_by_the_scores(capsys):
    """As METHOD's arithmetic has it: at a million tokens scoring outweighs attention."""
    assert cli.main(["cost", "--on", "B200", "--lengths", "1048576", "--json"]) == 0
    found = {one["kernel"]: one for one in json.loads(capsys.readouterr().out)["kernels"]}
    scores, attention = found["prefill: score_blocks"], found["prefill: attend_units"]
    assert scores["seconds"] > attention["seconds"]
    assert 0.2 < scores["budget"]["tensor"] < 0.3  # 5.6e14 FLOP at 2.25e15 a second


def test_the_table_names_what_bounds_each_kernel(capsys):
    assert cli.main(["cost", "--on", "H100", "--lengths", "32768"]) == 0
    shown = capsys.readouterr().out
    assert "Floors on H100" in shown
    assert "attend_units" in shown


def test_an_unknown_device_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["cost", "--on", "A100"])
    assert "--on" in capsys.readouterr().err
