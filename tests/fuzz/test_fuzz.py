"""Every property of the fuzzing, short in the fast session and long in the slow one."""

from __future__ import annotations

import pytest
from fuzz_hunting import hunt, hunt_machine, profile
from fuzz_properties import MACHINES, PROPERTIES

EFFORTS = ["quick", pytest.param("long", marks=pytest.mark.slow)]


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", PROPERTIES)
def test_every_case_is_right_or_refused(name, effort, record_property):
    one = PROPERTIES[name]
    wanted = getattr(one, effort)
    limits = profile(f"fuzz-{effort}", wanted)
    finished = hunt(one.check, one.draws, limits, pinned=one.pinned)
    assert finished >= wanted
    record_property(f"fuzz {name}", finished)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", MACHINES)
def test_every_history_of_a_cache_is_right(name, effort, record_property):
    machine, *counts = MACHINES[name]
    wanted = counts[effort == "long"]
    finished, steps = hunt_machine(machine, profile(f"fuzz-{effort}", wanted))
    assert finished >= wanted
    assert steps >= finished * 4, "histories of a few steps show nothing"
    record_property(f"fuzz {name}", finished)
    record_property("fuzz steps", steps)


def test_the_slow_session_goes_through_ten_thousand_cases():
    runs = sum(long for _, _, long in MACHINES.values())
    assert sum(one.long for one in PROPERTIES.values()) + runs >= 10_000
