"""Exact work of the pipeline: the same on every machine."""

from __future__ import annotations

import msa_kernels
from msa_suites.speed.counting import count_operation
from msa_suites.speed.history.prepared import NAMES, prepared


class Work:
    """Operations really computed."""

    params = ([name for name in NAMES if name.startswith("speed/prefill/")],)
    param_names = ("series",)
    timeout = 300.0
    version = "1"

    def track_flops(self, series: str) -> int:
        call = prepared(series)[1]
        implementation = msa_kernels.load("torch")
        return count_operation(implementation, "attend", *call.args, **call.kwargs)

    track_flops.unit = "FLOP"  # type: ignore[attr-defined]  # asv reads it from the function
