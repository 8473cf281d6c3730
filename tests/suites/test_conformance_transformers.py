"""The MiniMax-M3 of transformers under the conformance suite: of now, and of a buggy release."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import venv

import pytest
from test_gate_end_to_end import bench

OLD = "5.12.1"
CASES = ("--case", "lengths-127-128-129", "--case", "group-of-3")


@pytest.mark.slow
def test_the_release_here_conforms(tmp_path):
    done = bench(tmp_path, "conformance", "--implementation", "transformers", "--json")
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert (done.returncode, document["failed"]) == (0, 0), document["failures"]
    assert document["passed"] >= 100


@pytest.mark.slow
def test_the_release_with_one_selection_for_all_groups_is_diagnosed(tmp_path):
    """huggingface/transformers#46762: the index heads were collapsed by a maximum over heads."""
    venv.create(tmp_path / "old", symlinks=True, with_pip=True)
    (site,) = (tmp_path / "old" / "lib").glob("python*/site-packages")
    python = str(tmp_path / "old" / "bin" / "python")
    # What it needs comes first, of its own; torch is this environment's.
    got = subprocess.run(
        [python, "-m", "pip", "install", "-q", f"transformers=={OLD}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ConnectionError" in got.stderr or "No matching distribution" in got.stderr:
        pytest.skip(f"no package index has transformers {OLD} to offer: {got.stderr[-200:]}")
    assert got.returncode == 0, got.stderr
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    old = ("conformance", "--implementation", "transformers", "--python", python)
    done = bench(tmp_path, *old, *CASES, "--json")
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert f"with transformers {OLD}" in document["ran"]
    found = {(one["check"], one["case"]): one["detail"] for one in document["failures"]}
    for case in CASES[1::2]:
        assert "likely cause: one selection for all groups" in found["pipeline", case]
