"""Compile what the launchers launch for an architecture, without a GPU: a process of its own.

`python compile_kernels.py 90 bfloat16 128 128` (D, Bk) prints a JSON list: kernel, MMA opcodes and
stores in its PTX, shared memory, registers and stack. The launchers run on CPU tensors; each launch
becomes a compilation.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import KernelInterface

from msa.packing import cumulative
from msa_kernels.triton_ops.attention import key_outer, query_outer
from msa_kernels.triton_ops.combining import merge
from msa_kernels.triton_ops.scoring import score_rows
from msa_kernels.triton_ops.selecting import select_rows

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class NoDevice:
    """As much of a driver as compiling needs."""

    def __init__(self, arch):
        self._target = GPUTarget("cuda", arch, 32)

    def get_current_target(self):
        return self._target

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return 0


def launches(dtype, dim, block):
    """The heads and k of the paper: 64 / 4 and 16."""
    rows, keys, heads, groups, topk = 256, 4096, 64, 4, 16
    packing = {"cu_q": cumulative([rows]), "cu_k": cumulative([keys]), "block": block}
    q = torch.zeros(rows, heads, dim, dtype=dtype)
    k, v = torch.zeros(2, keys, groups, dim, dtype=dtype)
    selection = torch.zeros(rows, groups, topk, dtype=torch.int32)
    out, lse = torch.zeros_like(q), torch.zeros(rows, heads)
    scores = torch.zeros(rows, groups, keys // block)
    score_rows(q[:, :groups].contiguous(), k[:, :1].contiguous(), scores, 0, **packing, scale=0.1)
    select_rows(scores, selection, 0, **packing, local_blocks=1, sink_blocks=0)
    for way in (query_outer, key_outer):
        way.attend_packed(q, k, v, selection, out, lse, **packing, scale=0.1)
    pages = (x.view(-1, block, groups, dim).transpose(1, 2).contiguous() for x in (k, v))
    query_outer.attend_paged(
        q[:8], *pages, selection[:8], out[:8], lse[:8],
        page_table=torch.zeros(2, keys // block, dtype=torch.int32),
        k_lens=torch.full((2,), keys, dtype=torch.int32),
        scale=0.1,
    )  # fmt: skip
    parts = torch.zeros(3, *q.shape)
    merge(parts, torch.zeros(3, *lse.shape), parts[0], lse)


def described(kernel):
    """What the compiler made of a kernel."""
    ptx = kernel.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [_TOOLS / "cuobjdump", "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(size) for name, size in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}
    return {
        "kernel": kernel.metadata.name,
        "mma": sorted(set(re.findall(r"wgmma\.mma_async|tcgen05\.mma|mma\.sync", ptx))),
        "stores": len(re.findall(r"st\.global", ptx)),
        "shared": kernel.metadata.shared,
        "registers": found["REG"],
        "stack": found["STACK"],
    }


def main(arch, dtype, dim, block):
    compiled = []

    def compile_instead(kernel, grid):
        return lambda *a, **k: compiled.append(kernel.warmup(*a, grid=grid, **k))

    KernelInterface.__getitem__ = compile_instead
    driver.set_active(NoDevice(arch))
    launches(dtype, dim, block)
    print(json.dumps([described(kernel) for kernel in compiled]))


if __name__ == "__main__":
    main(int(sys.argv[1]), getattr(torch, sys.argv[2]), *map(int, sys.argv[3:]))
