"""Seconds of a prefill, MSA against dense attention, turn by turn in one process."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from msa_suites.case import OVERLAPS, Case
from msa_suites.reproduction.setup import Setup

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
#: Turns at the shortest length; long calls are few.
_TURNS, _FEWEST_TURNS, _TOKENS = 15, 3, 49_152
#: Rows of each output that are checked in float64 before anything is timed.
_CHECKED_ROWS = 8


def measure(setup: Setup) -> dict[str, Any]:
    """Raw seconds of every call, ratios of neighbouring calls, and where they cross 1."""
    lengths = LENGTHS[:2] if setup.quick else LENGTHS
    rows = [_time(setup, length) for length in lengths]
    crossovers = {overlap: crossover(rows, overlap) for overlap in OVERLAPS}
    case = _case(lengths[0], OVERLAPS[0])
    shape = {"Hq": case.Hq, "Hkv": case.Hkv, "D": case.D, "Di": case.Di}
    return {
        "shape": {**shape, "block": case.block, "topk": case.topk, "dtype": case.dtype},
        "implementation": "torch",
        "rows": rows,
        "crossover": crossovers,
    }


def crossover(rows: list[dict[str, Any]], overlap: str) -> float | None:
    """Tokens from which on MSA is faster, between two lengths on logarithmic axes.

    None where the ratio of dense to MSA does not pass 1 for good within the lengths.
    """
    points = [(row["length"], row["ratio"][overlap]["value"]) for row in rows]
    for (low, before), (high, after) in reversed(list(pairwise(points))):
        if after <= 1:
            return None
        if before <= 1:
            part = math.log(1 / before) / math.log(after / before)
            return float(low * (high / low) ** part)
    return None


def _case(length: int, overlap: str) -> Case:
    name = f"clock-{length}-{overlap}"
    lengths = (length,)
    return Case(name, lengths, lengths, Hq=8, Hkv=2, D=64, Di=64, overlap=overlap, seed=length)


def _time(setup: Setup, length: int) -> dict[str, Any]:
    from msa_harness.statistics import log_ratio_interval

    turns = 2 if setup.quick else max(_FEWEST_TURNS, min(_TURNS, _TOKENS // length))
    setup.say(f"clock: {length} tokens, {turns} turns")
    calls = {overlap: _msa(setup, _case(length, overlap)) for overlap in OVERLAPS}
    calls["dense"] = _dense(setup, _case(length, OVERLAPS[0]))
    for call in calls.values():  # memory and thread pools are there before the clock runs
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        for turn in range(turns):
            # Alternating order: what drifts falls on both sides.
            for name in list(calls) if turn % 2 else reversed(list(calls)):
                seconds[name].append(_seconds(setup, calls[name]))
    finally:
        gc.enable()
    ratios = {}
    for overlap in OVERLAPS:
        logs = [math.log(d / m) for d, m in zip(seconds["dense"], seconds[overlap], strict=True)]
        found = log_ratio_interval(logs, confidence=0.975)
        bounds = {"value": found.estimate, "low": found.low, "high": found.high}
        ratios[overlap] = {name: math.exp(value) for name, value in bounds.items()} | {"n": turns}
    return {"length": length, "turns": turns, "seconds": seconds, "ratio": ratios}


def _msa(setup: Setup, case: Case) -> Callable[[], object]:
    """One prefill, whose output is right on sampled rows.

    Raises:
        RuntimeError: it is not; nothing is timed on a wrong answer.
    """
    from msa_kernels import load
    from msa_suites.inputs import make_inputs
    from msa_suites.speed import spotcheck

    operations: Any = load("torch")
    inputs = make_inputs(case)
    tensors = [tensor.to(setup.device) for tensor in inputs.tensors]
    where = {
        "cu_q": inputs.cu_q.to(setup.device),
        "cu_k": inputs.cu_k.to(setup.device),
        "scale": case.scale,
        "index_scale": case.index_scale,
        **case.settings,
    }

    def call() -> Any:  # noqa: ANN401 - output and selection
        return operations.attend(*tensors, **where)

    out, selection = (part.cpu() for part in call())
    given = spotcheck.Pipeline(*inputs.tensors, case)
    rows = spotcheck.sampled_rows(case, _CHECKED_ROWS)
    if problem := spotcheck.check_pipeline(given, out, selection, rows):
        raise RuntimeError(f"clock: wanted a right prefill before it is timed, got {problem}")
    return call


def _dense(setup: Setup, case: Case) -> Callable[[], object]:
    from msa_suites.inputs import make_inputs

    inputs = make_inputs(case).tensors[:3]
    q, k, v = (x.transpose(0, 1)[None].contiguous().to(setup.device) for x in inputs)
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda: attend(q, k, v, is_causal=True, enable_gqa=True)


def _seconds(setup: Setup, call: Callable[[], object]) -> float:
    _settle(setup)
    started = time.perf_counter()
    call()
    _settle(setup)
    return time.perf_counter() - started


def _settle(setup: Setup) -> None:
    """Wait for a GPU: its calls return before they are done."""
    if setup.device == "cuda":
        torch.cuda.synchronize()
