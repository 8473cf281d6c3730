"""Seconds of a call on its device: events on a GPU, with the L2 cache emptied before each call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

#: More than the L2 cache of any GPU there is.
_FLUSHED = 256 << 20
#: Calls of one row: at least, at most, and the seconds that they may take together.
LEAST, MOST, SECONDS = 3, 30, 0.5

T = TypeVar("T")


class Clock:
    """Times calls on one device.

    Args:
        device: ``cuda`` or ``cpu``.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._flushed = torch.empty(_FLUSHED if device == "cuda" else 0, dtype=torch.int8)
        self._flushed = self._flushed.to(device)
        self._captures = device == "cuda"

    def captured(self, call: Callable[[], T]) -> tuple[Callable[[], T], str]:
        """The call as a CUDA graph, without the host between its launches; or itself, and why.

        A replay gives the same result each time, in the same memory. After a capture that failed
        there is no other: torch's allocator may take it for unfinished.
        """
        if not self._captures:
            return call, "not on a GPU" if self.device != "cuda" else "an earlier capture failed"
        try:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(2):  # compiles, and fills what is kept
                    call()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = call()
        except RuntimeError as error:  # it waits for the device, say
            self._captures = False
            torch.cuda.synchronize()
            return call, (str(error).strip() or "no message").splitlines()[0][:200]

        def replay() -> T:
            graph.replay()
            return result

        return replay, ""

    def alive(self) -> bool:
        """Whether the device still answers: after an illegal access nothing does."""
        if self.device == "cuda":
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                return False
        return True

    def times(self, call: Callable[[], object], *, least: int = LEAST) -> list[float]:
        """Seconds of each call, after some that do not count.

        The first compiles, and fills what is kept; the second says how many calls fit
        :data:`SECONDS`, unless the first took so long that ``least`` are enough.
        """
        first = self._once(call)
        wanted = int(SECONDS / max(self._once(call), 1e-6)) if first < 10 * SECONDS else 0
        return [self._once(call) for _ in range(min(max(wanted, least), MOST))]

    def _once(self, call: Callable[[], object]) -> float:
        if self.device != "cuda":
            began = time.perf_counter()
            call()
            return time.perf_counter() - began
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flushed.zero_()
        start.record()
        call()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3

    def ceilings(self) -> dict[str, float]:
        """What this device reaches: bytes/s of a copy (read and written), FLOP/s of a product."""
        size, side = (1 << 30, 8192) if self.device == "cuda" else (1 << 24, 512)
        dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        source = torch.empty(size, dtype=torch.int8, device=self.device)
        target = torch.empty_like(source)
        a = torch.randn(side, side, device=self.device, dtype=dtype)
        copied = statistics.median(self.times(lambda: target.copy_(source)))
        multiplied = statistics.median(self.times(lambda: a @ a))
        return {"bytes_per_second": 2 * size / copied, "flops_per_second": 2 * side**3 / multiplied}
