"""Peak bytes a call allocates above its inputs. Imports torch and the standard library only.

On a CPU torch's profiler reports every allocation and release of the tensor allocator with its
time; the peak of the running sum is the answer, and it is the same in every run. Scratch memory
that a library takes from malloc by itself is not seen. On a GPU the caching allocator counts.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes alive at once during `call()`, counted from its start; its result included."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        del result
        return torch.cuda.max_memory_allocated() - before
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            result = call()
        del result
    finally:
        gc.enable()
    if profiler.profiler is None or profiler.profiler.kineto_results is None:
        raise RuntimeError("peak bytes: wanted the profiler's memory events, got none")
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    alive = peak = 0
    for event in events:
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
