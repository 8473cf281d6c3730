"""Bytes a call allocates above its inputs. Imports torch and the standard library only.

On a CPU torch's profiler reports every allocation and release of the tensor allocator with its
time; the peak of the running sum is the answer, and it is the same in every run. Scratch memory
that a library takes from malloc by itself is not seen. On a GPU the caching allocator counts.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one call.

    Attributes:
        peak: Most that were alive at once, counted from its start; its result included.
        held: What is still alive once the result is gone: kept for later calls, or lost.
    """

    peak: int
    held: int


def memory_of(call: Callable[[], object]) -> Memory:
    """Make a call, and count what it takes and what it keeps."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        del result
        after = torch.cuda.memory_allocated()
        return Memory(torch.cuda.max_memory_allocated() - before, after - before)
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            result = call()
            del result
    finally:
        gc.enable()
    if profiler.profiler is None or profiler.profiler.kineto_results is None:
        raise RuntimeError("memory: wanted the profiler's events, got none")
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    alive = peak = 0
    for event in events:
        alive += event.nbytes()
        peak = max(peak, alive)
    return Memory(peak, alive)
