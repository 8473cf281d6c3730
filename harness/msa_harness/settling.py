"""Judge, measure what the judge asks for, judge again, until nothing is left to ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msa_harness.verdicts import Outcome


def settled(judge_now: Callable[[], Outcome], add: Callable[[Mapping[str, str]], bool]) -> Outcome:
    """The final outcome of a run.

    Args:
        judge_now: Judges what has been measured so far.
        add: Measures more of the series it is given ("more" or "confirm" by name); False where
            there was nothing to add.
    """
    while True:
        outcome = judge_now()
        wanted = {one.name: str(one.more) for one in outcome.series if one.more}
        if not wanted or not add(wanted):
            return outcome
