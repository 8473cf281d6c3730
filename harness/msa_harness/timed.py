"""One timed series on one worker: its inputs, its checked first call, its turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from msa_harness.client import Timing, Worker
from msa_harness.stored import StoredSets


@dataclass(frozen=True, slots=True)
class TimedSeries:
    """One operation on one set of inputs, timed on both sides.

    Attributes:
        name: Name of the series.
        handle: What the workers keep the operation's object under.
        operation: Attribute path below it; empty for the object itself.
        inputs: Builds the input sets (see `stored.StoredSets`); called once a run.
        target: "module:attribute" to load under `handle` first; empty where it is loaded already.
        vary: Tensors of fresh contents in every call, see `client.Worker.put`.
        shift: The same, by powers of two.
        check: Says what is wrong with an output, given the timing that carries it; empty for right.
            Asked before anything is timed, and again of a timed call.
        rows: Rows of the output's first dimension that `check` reads; empty: all.
        control: Whether this is the unchanged code that judges the machine.
        warmup: Calls before the checked one; that one is itself a warm-up of the timed ones.
        repeats: Calls in one turn.
        group: Series of one group are timed in turn with each other, so that their ratio does not
            take the machine's drift for a difference; empty: alone.
    """

    name: str
    handle: str
    operation: str
    inputs: Callable[[], Sequence[Mapping[str, object]]]
    target: str = ""
    vary: tuple[str, ...] = ()
    shift: tuple[str, ...] = ()
    check: Callable[[Timing], str] | None = None
    rows: tuple[int, ...] = ()
    control: bool = False
    warmup: int = 0
    repeats: int = 1
    group: str = ""


@dataclass(slots=True)
class Spent:
    """What the calls of a series on one side took in a block.

    Attributes:
        seconds: Of each call, by the worker's clock.
        beyond: Of each turn, by the judge's clock, less its calls: inputs, pipes, nothing else.
        calls: Of a turn, in seconds.
    """

    seconds: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)


#: Of the calls of a turn, and seconds: what a turn may take longer on one side than on the other.
_UNEXPLAINED, _UNEXPLAINED_SECONDS = 0.25, 0.005


def clock_problems(spent: Mapping[str, Spent]) -> dict[str, str]:
    """Sides whose calls took longer by the judge's clock than by their own, and what was seen.

    The two sides do the same around their calls. What one side's turns take beyond its calls, and
    the other's do not, was in the calls. In the median over turns: single turns meet strangers.
    """
    beyond = {side: median(one.beyond) for side, one in spent.items() if one.beyond}
    found = {}
    for side, took in beyond.items():
        extra, calls = took - min(beyond.values()), median(spent[side].calls)
        if extra > max(_UNEXPLAINED * calls, _UNEXPLAINED_SECONDS):
            found[side] = (
                f"its clock says {calls:.4f} s for the calls of a turn, "
                f"and the turn took {extra:.4f} s longer than that, compared with the other side"
            )
    return found


def grouped(series: Sequence[TimedSeries]) -> list[list[TimedSeries]]:
    """Groups in the order of their first series."""
    groups: dict[str, list[TimedSeries]] = {}
    for one in series:
        groups.setdefault(one.group or one.name, []).append(one)
    return list(groups.values())


def inputs_of(one: TimedSeries) -> str:
    return f"inputs of {one.name}"


def prepare(worker: Worker, one: TimedSeries, sets: StoredSets, *, seed: int) -> str:
    """Load, put, warm up and check: nothing is timed on a red check."""
    if one.target:
        worker.load(one.handle, one.target)
    worker.put(inputs_of(one), sets, vary=one.vary, shift=one.shift, seed=seed)
    timing = _call(worker, one, warmup=one.warmup, verify=True)
    return one.check(timing) if one.check is not None else ""


def take_turn(worker: Worker, one: TimedSeries, spent: Spent, *, verify: bool) -> str:
    """Time the calls of a turn; says what is wrong with the output of one of them."""
    started = time.perf_counter()
    timing = _call(worker, one, repeats=one.repeats, verify=verify)
    took = time.perf_counter() - started
    spent.seconds.extend(timing.seconds)
    spent.calls.append(sum(timing.seconds))
    spent.beyond.append(took - spent.calls[-1])
    return one.check(timing) if verify and one.check is not None else ""


def _call(
    worker: Worker, one: TimedSeries, *, warmup: int = 0, repeats: int = 1, verify: bool
) -> Timing:
    # One row of a checked output is enough where nobody reads it.
    rows = one.rows if one.check is not None else (0,)
    return worker.time(
        one.handle,
        one.operation,
        inputs_of(one),
        warmup=warmup,
        repeats=repeats,
        verify=verify,
        rows=rows,
    )
