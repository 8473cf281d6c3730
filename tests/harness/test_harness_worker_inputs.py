"""Workers for real, on inputs stored for them: timing, memory, and what may not change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msa_harness.client import CallFailedError
from msa_harness.stored import StoredSets

SETS = [{"args": [torch.full((50,), float(i))]} for i in range(3)]


def put(worker, handle, sets, **how):
    with StoredSets(sets) as stored:
        worker.put(handle, stored, **how)


def test_time_measures_each_call_and_returns_an_output(shared):
    put(shared, "in", SETS)
    timing = shared.time("toy", "slow", "in", warmup=1, repeats=4, verify=True)
    assert len(timing.seconds) == 4
    assert all(0.02 <= seconds < 0.5 for seconds in timing.seconds)
    assert timing.index == 0
    assert timing.output == 50.0 * timing.index


def test_the_call_that_is_checked_is_drawn_and_no_later_call_overwrites_it(shared):
    put(shared, "in", SETS)
    seen = set()
    for _ in range(24):
        before = float(shared.time("toy", "counted", "in", verify=True).output)
        timing = shared.time("toy", "counted", "in", warmup=1, repeats=3, verify=True)
        seen.add(float(timing.output) - before)  # all calls answer in one buffer
    assert seen == {2.0, 3.0, 4.0}  # any timed call, no warm-up


def test_time_rotates_sets_over_requests(shared):
    put(shared, "in", SETS)
    seen = [shared.time("toy", "slow", "in", verify=True).index for _ in range(4)]
    assert seen == [0, 1, 2, 0]


def test_varied_inputs_are_rebuilt_by_the_judge(shared):
    put(shared, "in", SETS, vary=["0"], seed=3)
    scales = []
    for _ in range(6):
        timing = shared.time("toy", "slow", "in", verify=True)
        expected = (SETS[timing.index]["args"][0] * timing.scale).sum()
        torch.testing.assert_close(timing.output, expected)
        scales.append(timing.scale)
    assert len(set(scales)) == 6


def test_answers_cached_by_address_are_stale_and_seen(shared):
    put(shared, "in", SETS, vary=["0"])
    stale = 0
    for _ in range(6):
        timing = shared.time("toy", "cached", "in", verify=True)
        stale += not torch.isclose(
            timing.output, (SETS[timing.index]["args"][0] * timing.scale).sum()
        )
    assert stale >= 3


def test_a_replaced_clock_is_not_used(fresh):
    fresh.call("toy", "rig")
    put(fresh, "in", SETS)
    assert fresh.time("toy", "slow", "in").seconds[0] >= 0.02


def test_mutation_is_seen_while_timing(shared):
    put(shared, "in", SETS)
    with pytest.raises(CallFailedError, match="unchanged") as caught:
        shared.time("toy", "mutate", "in", verify=True)
    assert caught.value.kind == "mutated"


@pytest.mark.parametrize(
    ("sets", "vary", "text"),
    [
        ([], [], "at least one set"),
        ([{"args": [torch.ones(2)]}, {"args": [torch.ones(3)]}], [], "one shape"),
        (SETS, ["q"], "floating tensor"),
        ([{"args": [torch.ones(2, dtype=torch.int32)]}], ["0"], "floating tensor"),
    ],
)
def test_bad_inputs_are_refused(shared, sets, vary, text):
    with pytest.raises(CallFailedError, match=text):
        put(shared, "bad", sets, vary=vary)


def test_only_asked_rows_come_back_in_the_shape_of_the_whole(shared):
    sets = [{"args": [torch.arange(40.0).view(10, 4)]}]
    put(shared, "in", sets)
    timing = shared.time("toy", "spread", "in", verify=True, rows=[0, 7])
    assert timing.output["total"] == 780.0
    part, rest = timing.output["parts"]
    assert part.shape == (10, 4)
    assert torch.equal(part[[0, 7]], sets[0]["args"][0][[0, 7]])
    assert rest == (1, "two", True)


def test_an_output_without_the_asked_rows_comes_back_whole(shared):
    put(shared, "in", SETS)
    output = shared.time("toy", "spread", "in", verify=True, rows=[50]).output
    assert torch.equal(output["parts"][0], SETS[0]["args"][0])


def test_peak_memory_counts_what_is_alive_at_once(shared):
    put(shared, "one", [{"args": [torch.ones(1)]}])
    sizes = [shared.memory("toy", "big", "one") for _ in range(2)]
    assert sizes[0] == sizes[1]
    # a and b together: 4 MB and 2 MB; then b and c
    assert 6_000_000 <= sizes[0].peak < 6_001_000
    assert sizes[0].held == 0


def test_what_a_call_keeps_is_counted(shared):
    put(shared, "one", [{"args": [torch.ones(1)]}])
    kept = shared.memory("toy", "hoard", "one")
    assert 400_000 <= kept.held < 401_000
    assert kept.peak >= kept.held


def test_no_process_can_change_stored_inputs_for_the_next(shared):
    with StoredSets(SETS) as stored:
        for mode in ("r+b", "wb", "ab"):
            with pytest.raises(PermissionError), Path(stored.path).open(mode) as file:
                file.write(b"other")
        shared.load("writer", "toy:mutate")
        shared.put("in", stored)
        with pytest.raises(CallFailedError, match="unchanged"):
            shared.time("writer", "", "in", verify=True)
        shared.put("in", stored)
        assert shared.time("toy", "pair", "in", verify=True).output[0][0] == 0


def test_stored_inputs_are_plain_values():
    with pytest.raises(TypeError, match=r"inputs\[0\]\.args\[0\]: wanted a tensor"):
        StoredSets([{"args": [object()]}])


def test_stored_inputs_are_gone_once_closed(shared):
    stored = StoredSets(SETS)
    stored.close()
    stored.close()
    with pytest.raises(ValueError, match="closed"):
        shared.put("in", stored)
