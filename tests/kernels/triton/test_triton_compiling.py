"""What the compiler makes of the kernels, without a GPU: "compiles" never means "runs"."""

from __future__ import annotations

import json

import pytest
from test_gate_end_to_end import bench

from msa_suites.aot.rules import RULES

#: A change of the kernels, as an implementation of its own.
CHANGED = """
from msa_kernels.triton_ops import launches, tiles
from msa_kernels.triton_ops.tiles import Tile

{change}
"""


@pytest.fixture(autouse=True)
def _compiled(monkeypatch):
    """Workers do not interpret as this process does."""
    monkeypatch.delenv("TRITON_INTERPRET")


def aot(*argv, where="."):
    done = bench(where, "aot", *argv, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_kernel_is_as_it_must_be_on_both_architectures():
    code, document = aot("--implementation", "triton")
    kernels = document["kernels"]
    assert code == 0, [one for one in kernels if not one["ok"]]
    assert all(one["ok"] and one["registers"] > 0 for one in kernels)
    assert document["ran"][0].startswith("msa_kernels.triton_ops")
    for arch, best in (("sm_90a", "wgmma.mma_async"), ("sm_100a", "tcgen05.mma")):
        mine = [one for one in kernels if one["arch"] == arch]
        assert len(mine) == 15  # with two versions of triton 60 compilations
        assert {one["name"].partition(".")[0] for one in mine} == set(RULES)
        users = {one["name"] for one in mine if best in one["instructions"]}
        assert users == {"score_tile", "score_tile.2", "attend_list", "grad_keys", "index_keys"}


def test_float32_is_multiplied_without_rounding_to_tf32():
    code, document = aot("--arch", "sm_90a", "--build", "float32-D32-Bk16-R4-k16")
    assert code == 0
    for one in document["kernels"]:
        assert not any("mma" in name for name in one["instructions"]), one


@pytest.mark.parametrize(
    ("kernel", "change", "arch", "words"),
    [
        ("score_tile", "Tile(128, 1, 1)", "sm_90a", "spills: wanted at most 0 bytes of stack"),
        ("score_tile", "Tile(1024, 8, 1)", "sm_100a", "tensor memory: wanted at most 512"),
        ("score_tile", "Tile(128, 8, 9)", "sm_90a", "shared memory: wanted at most 232448"),
        ("attend_list", "Tile(32, 4, 1)", "sm_100a", "wanted tcgen05.mma, got mma.sync"),
    ],
    ids=["spill", "tensor-memory", "shared-memory", "fewer-rows"],
)
def test_a_tile_that_does_not_fit_is_named(tmp_path, kernel, change, arch, words):
    table = {"score_tile": "SCORING", "attend_list": "KEY_OUTER"}[kernel]
    text = CHANGED.format(change=f"tiles.{table}[2, 128] = {change}")
    (tmp_path / "theirs.py").write_text(text)
    options = ("--implementation", "theirs", "--arch", arch, "--kernel", kernel)
    code, document = aot(*options, where=tmp_path)
    (one,) = (found for found in document["kernels"] if found["name"] == kernel)
    assert (code, one["ok"]) == (1, False)
    assert words in one["detail"]


def test_more_registers_than_base_are_a_regression(tmp_path):
    for side, change in (("base", ""), ("head", "tiles.QUERY_OUTER[2, 128] = Tile(16, 1, 2)")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "theirs.py").write_text(CHANGED.format(change=change))
    options = ["--implementation", "theirs", "--base-path", "base", "--head-path", "head"]
    done = bench(tmp_path, "gate", *options, "--suite", "aot", "--out", "run", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (1, "REGRESSION"), done.stderr
    verdicts = {one["name"]: one["verdict"] for one in document["series"]}
    assert verdicts["aot/registers/sm_90a"] == "REGRESSION"
    assert verdicts["aot/matrix_unit/sm_90a"] == "PASS"


def test_head_is_judged_alone_where_base_has_no_launches(tmp_path):
    for side, source in (("base", "def attend(): ...\n"), ("head", CHANGED.format(change=""))):
        (tmp_path / side).mkdir()
        (tmp_path / side / "theirs.py").write_text(source)
    options = ["--implementation", "theirs", "--base-path", "base", "--head-path", "head"]
    done = bench(tmp_path, "gate", *options, "--suite", "aot", "--out", "run", "--json")
    verdicts = {one["name"]: one["verdict"] for one in json.loads(done.stdout)["series"]}
    assert (verdicts["aot/compiles/sm_90a"], verdicts["aot/registers/sm_90a"]) == ("PASS", "NEW")
    assert done.returncode == 0


def test_what_cannot_be_compiled_says_why(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("def attend(): ...\n")
    done = bench(tmp_path, "aot", "--implementation", "theirs")
    assert (done.returncode, "wanted one with a function `launches`" in done.stderr) == (2, True)
    done = bench(tmp_path, "aot", "--kernel", "score", "--arch", "sm_90a")
    assert (done.returncode, "--kernel: wanted one that is launched" in done.stderr) == (2, True)
    done = bench(tmp_path, "aot", "--build", "bfloat16")
    assert (done.returncode, "--build: wanted" in done.stderr) == (2, True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = bench(tmp_path, "aot")
    assert (done.returncode, "TRITON_INTERPRET: wanted it unset" in done.stderr) == (2, True)
