"""One timed series on one worker: its inputs, its checked first call, its turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
            Asked before anything is timed, and again of the last timed call.
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


def take_turn(worker: Worker, one: TimedSeries, seconds: list[float], *, verify: bool) -> str:
    timing = _call(worker, one, repeats=one.repeats, verify=verify)
    seconds.extend(timing.seconds)
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
