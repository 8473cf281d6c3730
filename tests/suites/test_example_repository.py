"""The example repository under ``examples/`` is gated from end to end."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from test_gate_end_to_end import bench

pytestmark = pytest.mark.whole

EXAMPLE = Path(__file__).parents[2] / "examples" / "kernel_team"


@pytest.fixture
def team(tmp_path):
    """A copy of the repository, and beside it one to which a change can be applied."""
    for name in ("before", "after"):
        shutil.copytree(EXAMPLE, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def gate(team, change, gates):
    patch = team / "after" / "changes" / change
    subprocess.run(["git", "apply", str(patch)], cwd=team / "after", check=True)
    done = bench(
        team / "before",
        *("gate", "--implementation", "tinymsa", "--base-path", "src"),
        *("--head-path", "../after/src", "--cases", "shapes.jsonl", "--gates", gates),
        *("--suite", "correctness", "--suite", "work", "--out", "run", "--json"),
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def series_of(document, verdict):
    return {one["name"]: one for one in document["series"] if one["verdict"] == verdict}


def test_a_good_change_passes(team):
    code, document = gate(team, "good.patch", "gates.toml")
    assert (code, document["verdict"]) == (0, "PASS")
    passed = series_of(document, "PASS")
    assert {"correctness/pipeline", "work/flops/chunk-1k", "work/peak_bytes/two-prompts"} <= set(
        passed
    )


@pytest.mark.parametrize(
    "gates", ["gates-with-waiver.toml", pytest.param("gates.toml", marks=pytest.mark.slow)]
)
def test_a_planted_fault_fails_with_or_without_the_waiver(team, gates):
    code, document = gate(team, "fault.patch", gates)
    assert (code, document["verdict"]) == (1, "REGRESSION")
    wrong = series_of(document, "REGRESSION")["correctness/pipeline"]
    assert "likely cause: one selection for all groups" in wrong["note"]
    assert "--check pipeline --case" in wrong["repro"]


@pytest.mark.slow
def test_an_intended_change_needs_its_waiver(team):
    code, document = gate(team, "intended.patch", "gates.toml")
    assert (code, document["verdict"]) == (1, "REGRESSION")
    peaks = {"work/peak_bytes/chunk-1k", "work/peak_bytes/two-prompts"}
    assert set(series_of(document, "REGRESSION")) == peaks
    shutil.rmtree(team / "after")
    shutil.copytree(EXAMPLE, team / "after")
    shutil.rmtree(team / "before" / "run")
    code, document = gate(team, "intended.patch", "gates-with-waiver.toml")
    assert (code, document["verdict"]) == (0, "PASS")
    assert set(series_of(document, "WAIVED")) == peaks
