"""Peak memory of a long call: linear in the tokens, whatever the number of block scores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import re, sys, torch
from pathlib import Path
from msa import fast
from msa.packing import cumulative
torch.set_num_threads(1)

def peak():  # getrusage would count the parent's peak before exec
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

n, operation = int(sys.argv[1]), sys.argv[2]
q, k, v, qi = (torch.randn(n, h, 16) for h in (2, 1, 1, 1))
ki = torch.randn(n, 1, 16)
cu = cumulative([n])
options = {"cu_q": cu, "cu_k": cu, "block": 16, "scale": 0.25}
ids = (torch.rand(n, 1, 4) * (torch.arange(n) // 16)[:, None, None]).int()
out, lse = torch.randn(n, 2, 16), torch.randn(n, 2) + 5
before = peak()
if operation == "attend":
    fast.attend(q, k, v, qi, ki, topk=4, index_scale=0.25, **options)
elif operation == "index_kl":
    fast.index_kl(qi, ki, q, k, ids, index_scale=0.25, **options)
else:
    fast.sparse_attention_backward(q, q, k, v, out, lse, ids, **options)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("operation", ["attend", "index_kl", "sparse_attention_backward"])
def test_extra_memory_is_linear(operation: str) -> None:
    peaks = []
    for length in (16384, 65536):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(length), operation],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))  # KiB
    # All block scores of the longer call would take 1 GiB, the outputs take 8 MiB.
    assert peaks[1] < 200 * 1024
    assert peaks[1] < 6 * peaks[0] + 32 * 1024
