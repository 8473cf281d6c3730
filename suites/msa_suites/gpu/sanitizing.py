"""compute-sanitizer over a small case: reads and writes out of bounds, and races in shared memory.

The tools slow a kernel down by ten to a hundred times, so the case is the smallest that launches
every kernel (NVIDIA, Compute Sanitizer documentation).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msa_suites.case import E4M3, NVFP4, Case
from msa_suites.gpu.shapes import Row

TOOLS = ("memcheck", "racecheck")
#: What the tools end with when they find something.
_FOUND = 86
CHECKS = (
    *("scores", "selection", "attention", "attention_everything", "decode", "attend_paged"),
    *("backward", "index_kl", "combine"),
)
_SHAPE: dict[str, Any] = {"Hq": 8, "Hkv": 2, "D": 64, "Di": 64, "block": 32, "topk": 3}
CASES = (
    Case("sanitized", (3, 3), (150, 97), **_SHAPE, dtype="bfloat16"),
    Case("sanitized-fp8", (1, 1), (150, 97), **_SHAPE, dtype="bfloat16", kv_dtype=E4M3,
         index_dtype=E4M3),
    Case("sanitized-fp4", (1, 1), (150, 97), **_SHAPE, dtype="bfloat16", kv_dtype=NVFP4,
         index_dtype=NVFP4),
)  # fmt: skip


def sanitized(implementation: str, *, seconds: float) -> Iterator[Row]:
    """One row for each tool: its problem, or why it did not run.

    Args:
        implementation: its name.
        seconds: that a tool may take.
    """
    tool = _find()
    for kind in TOOLS:
        row: Row = {"name": f"compute-sanitizer/{kind}", "problem": ""}
        if tool is None:
            wanted = "wanted compute-sanitizer on PATH or in CUDA_HOME/bin, got none"
            yield row | {"problem": f"not measured: {wanted}"}
            continue
        yield row | {"problem": _ran(tool, kind, implementation, seconds)}


def _find() -> str | None:
    homes = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    places = [str(Path(home) / "bin") for home in (*homes, "/usr/local/cuda") if home]
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.pathsep.join(places)
    )


def _ran(tool: str, kind: str, implementation: str, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        cases = Path(folder) / "cases.jsonl"
        cases.write_text("".join(json.dumps(case.as_dict()) + "\n" for case in CASES))
        command = [
            *(tool, "--tool", kind, "--target-processes", "all", "--error-exitcode", str(_FOUND)),
            *(sys.executable, "-P", "-m", "msa_suites", "conformance", "--device", "cuda"),
            *("--implementation", implementation, "--cases", str(cases), "--json"),
            *("--timeout", str(int(seconds))),
            *(part for check in CHECKS for part in ("--check", check)),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not measured: it took more than {seconds:.0f} s"
        except OSError as error:
            return f"not measured: {error}"
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("=====")]
    if done.returncode == _FOUND:
        return next((line for line in said if "ERROR SUMMARY" not in line and len(line) > 12),
                    "it found something and did not say what")  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return f"ended with {done.returncode}: {last[:200]}"
    return ""
