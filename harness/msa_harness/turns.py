"""What the machine was like in the turns of each side of a block.

Base and head are driven in turn, so drift falls on both alike. These are the checks of that: the
clock of the cores, what foreign processes took, and the state of the GPU, side by side.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

import psutil

from msa_harness.client import Worker
from msa_harness.conditions import ForeignLoad
from msa_harness.gpu import Gpu, GpuState, find_gpu
from msa_harness.samples import finite

PREFIX = "speed/machine/"
_UNKNOWN = "the machine does not say"
# Of each side's turns in a block; the kernel counts load in hundredths.
_LEAST_SECONDS = 1.0
# Between two looks at the clock of the cores: some kernels ask every core, which takes 10 ms.
_CLOCK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that was watched in a block.

    Attributes:
        series: Its series; the value is the same on both sides, because it compares them.
        value: None where the machine does not say.
        unit: Of the value.
        detail: What was seen on each side, in words.
    """

    series: str
    value: float | None
    unit: str
    detail: str


@dataclass(slots=True)
class _Seen:
    """What one side's turns saw."""

    clocks: list[float] = field(default_factory=list)
    next_look: float = 0.0
    foreign: float = 0.0
    available: float = 0.0
    gpu: list[GpuState] = field(default_factory=list)


def core_clock() -> float | None:
    """Mean clock of the cores in Hz; None where the kernel does not say."""
    try:
        found = psutil.cpu_freq()
    except (OSError, RuntimeError):  # psutil's "not implemented" is a RuntimeError
        return None
    return found.current * 1e6 if found is not None and found.current else None


class Turns:
    """Watches the turns of one block."""

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        clock: Callable[[], float | None] = core_clock,
        gpu: Gpu | None = None,
    ) -> None:
        """Begin a block.

        Args:
            workers: Its processes; one on a GPU has it watched.
            clock: Hz of the cores.
            gpu: Watched instead of the one that the workers see.
        """
        self._pids = [worker.pid for worker in workers]
        self._clock = clock
        self._load: ForeignLoad | None = None
        self._cores = len(os.sched_getaffinity(0))
        self._sides: dict[str, _Seen] = defaultdict(_Seen)
        self._on_gpu = any(worker.device != "cpu" for worker in workers)
        self._gpu = find_gpu() if gpu is None and self._on_gpu else gpu

    @contextmanager
    def turn(self, side: str) -> Iterator[None]:
        """One turn of a side; nothing is read while its calls are timed."""
        seen = self._sides[side]
        if self._load is None:
            self._load = ForeignLoad(self._pids)
        yield
        foreign, available = self._load.lap()  # one reading ends a turn and begins the next
        if foreign is not None:
            seen.foreign += foreign
            seen.available += available
        if time.perf_counter() >= seen.next_look and (hz := self._clock()) is not None:
            seen.clocks.append(hz)
            seen.next_look = time.perf_counter() + _CLOCK_SECONDS
        if self._gpu is not None:
            seen.gpu.append(self._gpu.state([os.getpid(), *self._pids]))

    def conditions(self) -> list[Condition]:
        """What was watched, once the block is over; nothing where no turn was taken."""
        found: list[Condition] = []
        if {"base", "head"} <= set(self._sides):
            found += [self._clock_difference(), self._load_difference()]
        if self._sides and self._gpu is not None:
            found += self._gpu_conditions()
        elif self._sides and self._on_gpu:
            why = "not watched: NVML does not answer, or msa-bench[gpu] is not installed"
            found.append(Condition(f"{PREFIX}gpu_throttled", None, "share", why))
        return found

    def _clock_difference(self) -> Condition:
        clocks = {side: fmean(seen.clocks) for side, seen in self._sides.items() if seen.clocks}
        return _difference("clock_difference", clocks, "fraction", "{:.4g} GHz", 1e-9)

    def _load_difference(self) -> Condition:
        name, least = f"{PREFIX}load_difference", _LEAST_SECONDS * self._cores
        seen = self._sides
        if not all(seen[side].available for side in ("base", "head")):
            return Condition(name, None, "share", _UNKNOWN)
        if any(seen[side].available < least for side in ("base", "head")):
            why = (
                f"turns of less than {_LEAST_SECONDS:g} s together: the kernel counts too coarsely"
            )
            return Condition(name, None, "share", why)
        base, head = (seen[side].foreign / seen[side].available for side in ("base", "head"))
        text = f"base {base:.1%} of the cores, head {head:.1%} of the cores"
        return Condition(name, head - base, "share", text)

    def _gpu_conditions(self) -> list[Condition]:
        states = [state for seen in self._sides.values() for state in seen.gpu]
        clocks = {
            side: fmean(hz)
            for side, seen in self._sides.items()
            if (hz := [state.sm_hz for state in seen.gpu if state.sm_hz])
        }
        known = [state.throttled for state in states if state.throttled is not None]
        reasons = sorted({name for names in known for name in names})
        throttled = [float(bool(names)) for names in known]
        capped = [float(s.power_capped) for s in states if s.power_capped is not None]
        errors = [state.ecc_errors for state in states if state.ecc_errors is not None]
        heat = [state.celsius for state in states if state.celsius is not None]
        power = [state.watts for state in states if state.watts is not None]
        others = [state.foreign for state in states if state.foreign is not None]
        what = ", ".join(reasons) or ("no reason seen" if known else _UNKNOWN)
        return [
            _difference("gpu_clock_difference", clocks, "fraction", "{:.4g} GHz", 1e-9),
            Condition(f"{PREFIX}gpu_throttled", _mean(throttled), "share", what),
            Condition(f"{PREFIX}gpu_power_capped", _mean(capped), "share", "share of the turns"),
            Condition(
                f"{PREFIX}gpu_ecc_errors",
                float(max(errors) - min(errors)) if errors else None,
                "errors",
                f"{max(errors)} since the driver started" if errors else _UNKNOWN,
            ),
            Condition(
                f"{PREFIX}gpu_foreign_processes",
                float(max(others)) if others else None,
                "processes",
                "the most at one time" if others else _UNKNOWN,
            ),
            Condition(f"{PREFIX}gpu_temperature", _most(heat), "degC", "the highest"),
            Condition(f"{PREFIX}gpu_power", _mean(power), "W", "the mean"),
        ]


def _difference(
    name: str, sides: dict[str, float], unit: str, shown: str, factor: float
) -> Condition:
    """Head against base, as a fraction of base."""
    text = ", ".join(f"{side} {shown.format(value * factor)}" for side, value in sides.items())
    if not {"base", "head"} <= set(sides):
        return Condition(PREFIX + name, None, unit, text or _UNKNOWN)
    value, why = finite(sides["head"] / sides["base"] - 1)
    return Condition(PREFIX + name, value, unit, why or text)


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def _most(values: list[float]) -> float | None:
    return max(values) if values else None
