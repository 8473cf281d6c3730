"""The first call of torch's vectorised functions is made on one thread, before the subject's."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import os, sys
import torch
from torch.utils._python_dispatch import TorchDispatchMode

class Seen(TorchDispatchMode):
    names = set()
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        dtype = getattr(args[0] if args else None, "dtype", None)
        self.names.add((str(function), torch.get_num_threads(), dtype))
        return function(*args, **(kwargs or {{}}))

torch.set_num_threads(2)
with Seen():
    {body}
for name in ("exp", "log", *{more}):
    for dtype in (torch.float32, torch.float64):
        found = [n for n in Seen.names if n[0] == f"aten.{{name}}.default" and n[2] == dtype]
        assert found, (name, dtype)
        assert {threads} in [n[1] for n in found], found
print("settled", file=sys.stderr)
"""

WORKER = """
    from msa_harness import worker
    requests, nothing = os.pipe()
    os.close(nothing)
    nobody, replies = os.pipe()
    worker.main([str(requests), str(replies), str(os.getppid()), "2", "cpu"])
"""


def run(body, *, more, threads):
    source = SCRIPT.format(body=body.strip(), more=more, threads=threads)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "settled" in done.stderr


def test_a_worker_settles_them_before_any_request():
    run(WORKER, more=("sqrt", "sin", "tanh"), threads=1)


def test_the_fast_path_settles_its_own_at_import():
    run("import msa.fast", more=(), threads=2)
