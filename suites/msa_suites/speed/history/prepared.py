"""Arguments that asv benchmarks share. asv calls ``setup`` before every timed call, so the heavy
part is cached per process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msa_kernels
from msa_suites.speed.series import Call, SpeedSeries, speed_series

NAMES = [
    series.name for series in speed_series("quick", dense=True) if series.overlap != "recorded"
]


@cache
def series_named(name: str) -> SpeedSeries:
    """The series of the quick profile with that name."""
    return next(s for s in speed_series("quick", dense=True) if s.name == name)


@cache
def prepared(name: str) -> tuple[Callable[..., object], Call]:
    """The operation of a series on the ``torch`` implementation, and one set of arguments."""
    series = series_named(name)
    if series.operation == "dense":
        from torch.nn.functional import scaled_dot_product_attention as operation
    else:
        operation = getattr(msa_kernels.load("torch"), series.operation)
    return operation, series.first_call()
