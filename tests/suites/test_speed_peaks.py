"""What a machine does at best, and the work of the calls that are held against it."""

from __future__ import annotations

import pytest
import torch

from msa_suites.speed import peaks
from msa_suites.speed.limits import speed_limits
from msa_suites.speed.peaks import machine_peaks
from msa_suites.speed.series import speed_series


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(peaks, "_SECONDS", 0.01)
    monkeypatch.setattr(peaks, "_SIDE", {"cpu": 64})
    monkeypatch.setattr(peaks, "_COPIED", {"cpu": 2**16})


def test_peaks_are_rates_of_the_fastest_call(monkeypatch):
    monkeypatch.setattr(peaks, "_least", lambda call, _device: call() is None or 0.5)
    threads = torch.get_num_threads()
    found = machine_peaks({"float32", "bfloat16"}, device="cpu", threads=1)
    # A product of two 64 x 64 matrices is 2 * 64^3 operations; a copy reads and writes.
    assert found["flops_per_second"] == {"bfloat16": 2**20, "float32": 2**20}
    assert found["bytes_per_second"] == 2**18
    assert torch.get_num_threads() == threads


def test_the_warm_up_is_not_the_fastest(monkeypatch):
    # Until when; start and end of three calls; the time after them.
    clock = iter([0.0, 0.0, 0.1, 1.0, 3.0, 4.0, 5.0, 99.0])
    monkeypatch.setattr(peaks.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(peaks, "_TRIES", 2)
    assert peaks._least(lambda: None, "cpu") == 1.0


def test_the_work_of_every_timed_length_is_what_arithmetic_says():
    document = speed_limits(speed_series("full"))
    work = {(r["what"], r["dtype"], r["length"]): r for r in document["roofline"]["work"]}
    assert len(work) == len(document["roofline"]["work"])
    assert {(what, dtype) for what, dtype, _ in work} == {
        ("dense", "float32"), ("prefill", "float32"), ("decode", "float32"),
        ("dense", "bfloat16"), ("prefill", "bfloat16"),
    }  # fmt: skip
    # Hq 8, D 64: every pair at or below the diagonal of 4096 x 4096 is 4 * 8 * 64 operations;
    # 8 query heads in and out, 2 heads of keys and of values.
    dense = work["dense", "float32", 4096]
    assert dense["flops"] == 4 * 8 * 64 * 4096 * 4097 // 2
    assert dense["bytes"] == 4096 * 64 * (2 * 8 + 2 * 2) * 4
    # Half the bytes an element; block ids stay as they are.
    wide, narrow = work["prefill", "float32", 8192], work["prefill", "bfloat16", 8192]
    ids = 8192 * 2 * 16 * 4
    assert wide["bytes"] - ids == 2 * (narrow["bytes"] - ids)
    assert wide["flops"] == narrow["flops"] < work["dense", "float32", 8192]["flops"]
    # The last token attends 16 blocks of 128: two products, keys and values of two groups.
    decode = work["decode", "float32", 8192]
    assert (decode["flops"], decode["bytes"]) == (4 * 8 * 64 * 2048, 2 * 2 * 64 * 2048 * 4)
