"""How long to look, and the proof that it was: each hunt returns the cases that it finished.

Two profiles of hypothesis. ``fuzz-quick`` draws the same cases every time, so that the fast
session shows that the machinery works; ``fuzz-long`` draws new ones, and a failure prints the
case, whose plain numbers make a pinned example.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis.stateful import run_state_machine_as_test

_COMMON = {
    "deadline": None,  # the machine may be busy
    "database": None,  # a failing case is pinned in the source, not remembered on one machine
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
    "report_multiple_bugs": False,
}
settings.register_profile("fuzz-quick", derandomize=True, stateful_step_count=12, **_COMMON)
settings.register_profile(
    "fuzz-long", derandomize=False, print_blob=True, stateful_step_count=25, **_COMMON
)


def profile(name, cases, *, shrink=True):
    phases = (Phase.explicit, Phase.generate, *((Phase.shrink,) if shrink else ()))
    return settings(settings.get_profile(name), max_examples=cases, phases=phases)


def hunt(check, draws, limits, *, pinned=()):
    """Call ``check`` on drawn cases and on the pinned ones; how many drawn ones it finished."""
    finished = 0

    def one(case):
        nonlocal finished
        check(case)
        finished += 1

    test = given(case=draws)(one)
    for case in pinned:
        test = example(case=case)(test)
    limits(test)()
    return finished - len(pinned)


def hunt_machine(machine, limits):
    """Run a state machine; how many runs, and how many steps in all, came to their end."""
    machine.finished = machine.steps = 0
    run_state_machine_as_test(machine, settings=limits)
    # Runs that hypothesis broke off, for want of random bytes, are ended too but are no cases.
    return min(machine.finished, limits.max_examples), machine.steps
