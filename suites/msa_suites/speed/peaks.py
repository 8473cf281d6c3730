"""The ceilings of the roofline: what this machine does at best, measured beside a run.

A product of two square matrices and a copy, by torch: what an implementation could reach with the
same library, the same cores and the same dtype. Not a data sheet's number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import torch

#: Sides of the matrices and bytes that are copied: past what caches hold, and still quick.
_SIDE = {"cpu": 1024, "cuda": 8192}
_COPIED = {"cpu": 2**28, "cuda": 2**30}
#: Calls of each, and the seconds that they go on for: strangers on a shared machine come in bursts.
_TRIES, _SECONDS = 8, 0.75


def machine_peaks(dtypes: AbstractSet[str], *, device: str, threads: int) -> dict[str, Any]:
    """Measure the ceilings.

    Args:
        dtypes: names of the dtypes of the products, "float32".
        device: "cpu" or "cuda".
        threads: CPU threads, as the timed workers have.

    Returns:
        ``{"flops_per_second": {dtype: rate}, "bytes_per_second": rate, "device", "threads",
        "how"}``; bytes are those read and those written.
    """
    side, copied = _SIDE[device], _COPIED[device]
    with _threads(threads), torch.inference_mode():
        rates = {dtype: 2 * side**3 / _product(side, dtype, device) for dtype in sorted(dtypes)}
        source = torch.ones(copied, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        seconds = _least(lambda: target.copy_(source), device)
    return {
        "flops_per_second": rates,
        "bytes_per_second": 2 * copied / seconds,
        "device": device,
        "threads": threads,
        "how": f"product of {side} x {side} matrices, copy of {copied >> 20} MiB; "
        f"the best of {_SECONDS:g} s",
    }


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _product(side: int, dtype: str, device: str) -> float:
    """Least seconds of a product of two square matrices."""
    a = torch.ones(side, side, dtype=getattr(torch, dtype), device=device)
    out = torch.empty_like(a)
    return _least(lambda: torch.mm(a, a, out=out), device)


def _least(call: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of some calls; the first, which warms up, is not counted."""
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) <= _TRIES or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])
