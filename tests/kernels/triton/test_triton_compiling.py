"""What the compiler makes of the kernels, without a GPU: "compiles" never means "runs"."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "shared" / "compile_kernels.py"
MMA = {90: "wgmma.mma_async", 100: "tcgen05.mma"}
#: Products of 64 rows and more; the heads of one query are fewer.
FULL = {"score_tile", "attend_list"}
KERNELS = {"score_tile", "select_tile", "name_lists", "attend_list", "attend_slots", "merge_tile"}
#: Bytes of stack, which is where registers spill.
MOST_STACK = 0
#: Bytes of shared memory that a program can have.
MOST_SHARED = 232_448


def compiled(arch, dtype, dim, block):
    """What every launch became. A process of its own: this one interprets."""
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, SCRIPT, str(arch), dtype, str(dim), str(block)],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("arch", MMA)
def test_every_kernel_compiles_for_tensor_cores(arch):
    found = compiled(arch, "bfloat16", dim=128, block=128)
    assert {one["kernel"] for one in found} == KERNELS
    assert collections.Counter(one["kernel"] for one in found)["attend_slots"] == 2
    for one in found:
        assert one["stores"] > 0, one  # over the tensor-memory budget the compiler emits nothing
        assert one["shared"] <= MOST_SHARED, one
        assert one["stack"] <= MOST_STACK, one
        if one["kernel"] in FULL:
            assert one["mma"] == [MMA[arch]], one
        elif one["kernel"] == "attend_slots":
            assert one["mma"] == ["mma.sync"], one
        else:
            assert not one["mma"], one


def test_float32_is_multiplied_without_rounding_to_tf32():
    """Small, for products without tensor cores take a minute to compile at the paper's size."""
    found = compiled(90, "float32", dim=32, block=16)
    assert {one["kernel"] for one in found} == KERNELS
    for one in found:
        assert one["stores"] > 0, one
        assert not one["mma"], one
