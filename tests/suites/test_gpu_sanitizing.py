"""compute-sanitizer in the GPU pass: how it is asked, over what, and what its answers become."""

from __future__ import annotations

import json
import os

import pytest
from test_gate_end_to_end import bench

from msa_suites.gpu import sanitizing
from msa_suites.gpu.sanitizing import TOOLS, sanitized


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A stand-in for compute-sanitizer on PATH, which no CPU machine has: a script of one body."""

    def install(body):
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "compute-sanitizer"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return install


def test_the_sanitizer_runs_each_tool_over_a_small_case(tool, tmp_path):
    tool(f'echo "$@" >> {tmp_path}/asked; exit 0')
    assert [row["problem"] for row in sanitized("triton", seconds=60)] == ["", ""]
    asked = (tmp_path / "asked").read_text().splitlines()
    for line, kind in zip(asked, TOOLS, strict=True):
        assert line.startswith(f"--tool {kind} --target-processes all --error-exitcode 86 ")
        assert " -m msa_suites conformance --device cuda --implementation triton --cases " in line


def test_the_small_case_runs_every_check_that_it_names(tmp_path):
    """Without a GPU: on the specification."""
    cases = tmp_path / "cases.jsonl"
    cases.write_text("".join(json.dumps(case.as_dict()) + "\n" for case in sanitizing.CASES))
    checks = [part for check in sanitizing.CHECKS for part in ("--check", check)]
    done = bench(tmp_path, "conformance", "--implementation", "reference", "--cases", str(cases),
                 *checks, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    # Bytes have no gradients and no loss.
    assert (document["passed"], document["skipped"]) == (3 * len(sanitizing.CHECKS) - 4, 4)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo '========= Invalid __global__ read of size 4 bytes'; exit 86",
         "========= Invalid __global__ read of size 4 bytes"),
        ("echo 'no such device' >&2; exit 3", "ended with 3: no such device"),
        ("sleep 9", "not measured: it took more than 1 s"),
    ],
)  # fmt: skip
def test_what_the_sanitizer_finds_is_said(tool, body, words):
    tool(body)
    assert [row["problem"] for row in sanitized("triton", seconds=1)] == [words] * 2


def test_without_the_sanitizer_it_says_so(monkeypatch):
    monkeypatch.setattr(sanitizing, "_find", lambda: None)
    wanted = "wanted compute-sanitizer on PATH or in CUDA_HOME/bin, got none"
    problems = {row["problem"] for row in sanitized("triton", seconds=1)}
    assert problems == {f"not measured: {wanted}"}
