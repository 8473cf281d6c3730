"""Seconds and peak memory of every series of the quick profile."""

from __future__ import annotations

from collections.abc import Callable

from msa_suites.speed.history.prepared import NAMES, prepared
from msa_suites.speed.series import Call


class Operations:
    """One call of an operation."""

    params = (NAMES,)
    param_names = ("series",)
    timeout = 300.0
    version = "1"
    number = 1
    repeat = (3, 10, 20.0)
    warmup_time = 0.2
    operation: Callable[..., object]
    call: Call

    def setup(self, series: str) -> None:
        self.operation, self.call = prepared(series)

    def time_call(self, _series: str) -> None:
        self.operation(*self.call.args, **self.call.kwargs)

    def peakmem_call(self, _series: str) -> None:
        self.operation(*self.call.args, **self.call.kwargs)
