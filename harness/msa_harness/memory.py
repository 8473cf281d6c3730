"""Bytes a call allocates above its inputs. Imports torch and the standard library only.

On a CPU torch's profiler reports every allocation and release of the tensor allocator with its
time; the peak of the running sum is the answer, and it is the same in every run. Scratch memory
that a library takes from malloc by itself is not seen. On a GPU the caching allocator counts.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one call.

    Attributes:
        peak: Most that were alive at once, counted from its start; its result included.
        held: What of it is still alive once the result is gone: kept for later calls, or lost.
            On a CPU what the call releases of earlier calls is not taken off; on a GPU it is.
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
    sizes: dict[int, int] = {}
    alive = peak = 0
    for address, size in _allocations(profiler.profiler.kineto_results.experimental_event_tree()):
        # Torch remembers the sizes of earlier profiles by address: what it says of a block that
        # was there before this call may be another block's, so only this call's own are counted.
        if size > 0:
            sizes[address] = size
            alive += size
        else:
            alive -= sizes.pop(address, 0)
        peak = max(peak, alive)
    return Memory(peak, alive)


def _allocations(roots: Iterable[Any]) -> list[tuple[int, int]]:
    """Address and bytes of every allocation, and of every release (negative), in their order."""
    events, left = [], list(roots)
    while left:
        event = left.pop()
        left.extend(event.children)
        if event.tag == _EventType.Allocation:
            fields = event.extra_fields
            events.append((event.start_time_ns, fields.ptr, fields.alloc_size))
    return [(address, size) for _, address, size in sorted(events)]
