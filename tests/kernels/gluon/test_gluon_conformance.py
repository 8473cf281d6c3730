"""Both arms through the command line that everyone's implementation goes through."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["sm100_simulated", "sm90_simulated"])
def test_a_simulated_arm_passes_what_it_declares(name):
    checks = ("scores", "attend_paged")
    options = [word for check in checks for word in ("--check", check)]
    environment = {key: text for key, text in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-P", "-m", "msa_suites", "conformance", "--implementation", name]
    done = subprocess.run(
        [*command, *options, "--json"], capture_output=True, text=True, env=environment, timeout=600
    )
    document = json.loads(done.stdout)
    assert (done.returncode, document["failures"]) == (0, [])
    assert document["passed"] >= 10
    assert document["ran"].startswith(f"msa_kernels.gluon_ops:{name}")
