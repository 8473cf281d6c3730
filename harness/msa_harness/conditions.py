"""How much of the machine others used while a block was timed, from the kernel's own counters."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")


class ForeignLoad:
    """Share of the usable cores' time that went to processes other than the given ones.

    Time stolen by a hypervisor counts as foreign. Meant for intervals of a second and more: the
    kernel counts in hundredths.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._cores = sorted(os.sched_getaffinity(0))
        self._since = time.perf_counter()
        self._busy, self._own = self._read()

    def share(self) -> float | None:
        """Between 0 and 1, since construction or the last lap; None where it is not known."""
        foreign, seconds = self.lap()
        if foreign is None or seconds <= 0:
            return None
        return min(1.0, max(0.0, foreign / seconds))

    def lap(self) -> tuple[float | None, float]:
        """Foreign seconds, to the nearest tick, and those the cores had; counts from here on."""
        since, before, own_before = self._since, self._busy, self._own
        self._since = time.perf_counter()
        self._busy, self._own = self._read()
        seconds = (self._since - since) * len(self._cores)
        if before is None or self._busy is None:
            return None, seconds
        return (self._busy - before) - (self._own - own_before), seconds

    def _read(self) -> tuple[float | None, float]:
        """Busy seconds of the usable cores, and seconds of our own processes."""
        own = sum(_process_seconds(pid) for pid in self._pids)
        try:
            lines = (_PROC / "stat").read_text().splitlines()
        except OSError:
            return None, own
        names = {f"cpu{core}" for core in self._cores}
        rows = [line.split() for line in lines if line.split(" ", 1)[0] in names]
        # user nice system idle iowait irq softirq steal
        ticks = sum(int(row[i]) for row in rows for i in (1, 2, 3, 6, 7, 8))
        return (ticks / _TICK if rows else None), own


def _process_seconds(pid: int) -> float:
    """Processor time of a process and its ended children; 0 once it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICK
