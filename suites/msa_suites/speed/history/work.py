"""Exact work of the pipeline: the same on every machine."""

from __future__ import annotations

from msa_suites.speed.counting import count_flops
from msa_suites.speed.history.prepared import NAMES, prepared


class Work:
    """Operations really computed."""

    params = ([name for name in NAMES if name.startswith("speed/prefill/")],)
    param_names = ("series",)
    timeout = 300.0
    version = "1"

    def track_flops(self, series: str) -> int:
        operation, call = prepared(series)
        return count_flops(operation, *call.args, **call.kwargs)

    track_flops.unit = "FLOP"  # type: ignore[attr-defined]  # asv reads it from the function
