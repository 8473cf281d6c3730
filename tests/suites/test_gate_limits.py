"""What an implementation declares to be its limits: nothing outside of them is asked of it."""

from __future__ import annotations

import json
import shlex
import sys

import pytest
from test_gate_end_to_end import bench

from msa_harness.records import ERROR
from msa_harness.subjects import Subject
from msa_suites.case_files import load_cases
from msa_suites.folders import judge_paths
from msa_suites.session import Session, Side
from msa_suites.speed import suite

pytestmark = pytest.mark.whole

STRICT = """
from msa import fast

CAPABILITIES = {"dtypes": ["bfloat16"], "head_dims": [128], "block_sizes": [128]}


def attend(q, *others, block, **settings):
    if (str(q.dtype), q.shape[-1], block) != ("torch.bfloat16", 128, 128):
        raise RuntimeError("outside of what is declared")
    return fast.attend(q, *others, block=block, **settings)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "theirs.py").write_text(STRICT)
    return tmp_path


@pytest.mark.parametrize("name", ["theirs", "theirs:attend"])
def test_conformance_stays_within_the_limits_and_finds_cases_there(folder, name):
    done = bench(folder, "conformance", "--implementation", name, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["failed"]) == (0, 0), document["failures"]
    assert document["passed"] >= 3


def test_conformance_that_could_run_nothing_is_no_verdict(folder):
    (folder / "theirs.py").write_text(STRICT.replace('"head_dims": [128]', '"head_dims": [80]'))
    done = bench(folder, "conformance", "--implementation", "theirs")
    assert done.returncode == 2
    assert "wanted one that runs a check, got theirs" in done.stderr


def test_one_case_is_checked_alone_whatever_its_profile(folder):
    (folder / "theirs.py").write_text("from msa.fast import attend\n")
    theirs = ["conformance", "--implementation", "theirs", "--json"]
    # A single token, below any budget, beside a case of the standard profile.
    both = bench(folder, *theirs, "--case", "length-1", "--case", "length-8193")
    document = json.loads(both.stdout)
    assert (document["failed"], document["passed"]) == (0, 2), both.stderr
    nothing = bench(folder, *theirs, "--case", "length-1", "--check", "decode")
    assert nothing.returncode == 2
    assert "--case: wanted one that --check decode is for, got length-1" in nothing.stderr
    unknown = bench(folder, *theirs, "--case", "length-2")
    assert unknown.returncode == 2
    assert "did you mean length-1" in unknown.stderr


def test_the_command_that_a_failure_names_repeats_it(folder):
    wrong = STRICT.replace("return fast.attend(q", "return fast.attend(2 * q")
    (folder / "theirs.py").write_text(wrong)
    done = bench(folder, "conformance", "--implementation", "theirs", "--json")
    failures = json.loads(done.stdout)["failures"]
    assert done.returncode == 1
    assert len(failures) > 1
    words = shlex.split(failures[0]["repeat"])
    assert words[:2] == ["msa-bench", "conformance"]
    again = json.loads(bench(folder, *words[1:], "--json").stdout)["failures"]
    assert [(one["check"], one["case"], one["detail"]) for one in again] == [
        (failures[0]["check"], failures[0]["case"], failures[0]["detail"])
    ]


def test_a_file_is_found_from_where_one_stands(folder):
    (folder / "there").mkdir()
    (folder / "there" / "mine.py").write_text("from msa.fast import attend\n")
    one = ("--check", "pipeline", "--case", "length-1", "--json")
    for named in (["there/mine.py:attend"], ["mine.py:attend", "--path", "there"]):
        done = bench(folder, "conformance", "--implementation", *named, *one)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["passed"] == 1
    lost = bench(folder, "conformance", "--implementation", "mine.py:attend", *one)
    assert lost.returncode == 2
    assert "wanted a Python file, got mine.py" in lost.stderr


def test_work_is_counted_within_the_limits(folder):
    ours = ["--implementation", "theirs", "--base-path", ".", "--head-path", "."]
    done = bench(folder, "gate", *ours, "--suite", "work", "--out", "run", "--json")
    document = json.loads(done.stdout)
    verdicts = {one["name"]: one["verdict"] for one in document["series"]}
    assert verdicts["work/flops/prefill-4096-low"] == "NO_SIGNAL", done.stderr
    assert verdicts["work/flops/ragged-dim-128-bfloat16"] == "PASS"
    assert (done.returncode, document["verdict"]) == (0, "PASS")


def test_limits_that_head_alone_has_are_lost_work_and_lost_series(folder):
    for side, source in (("base", STRICT.replace("bfloat16", "float32")), ("head", STRICT)):
        (folder / side).mkdir()
        (folder / side / "theirs.py").write_text(source)
    (folder / "shapes.jsonl").write_text(
        '{"name": "mine", "q_lens": [300], "Hq": 2, "Hkv": 1, "D": 128, "topk": 2}\n'
    )
    ours = ["--implementation", "theirs", "--base-path", "base", "--head-path", "head"]
    options = ["--cases", "shapes.jsonl", "--out", "run", "--json"]
    done = bench(folder, "gate", *ours, "--suite", "work", *options)
    document = json.loads(done.stdout)
    verdicts = {one["name"]: one["verdict"] for one in document["series"]}
    assert verdicts["work/flops/mine"] == "REMOVED", done.stderr
    assert done.returncode != 0
    sides = {
        side: Side(Subject(side, sys.executable, (folder / side,)), "theirs")
        for side in ("base", "head")
    }
    cases = load_cases(folder / "shapes.jsonl")
    session = Session(sides=sides, judge_paths=judge_paths(with_method=True), cases=cases)
    (lost,) = suite._skipped(session)
    assert lost.series == "speed/attend/mine"
    assert lost.detail.startswith(ERROR)


def test_series_outside_of_the_limits_are_not_timed(folder):
    theirs = Side(Subject("head", sys.executable, (folder,)), "theirs")
    session = Session(sides={"head": theirs}, judge_paths=judge_paths(with_method=True))
    skipped = {one.series: one.detail for one in suite._skipped(session)}
    timed = {one.name for one in suite._runner(session).series if not one.control}
    assert skipped["speed/chunk/4096/low"] == "dtype float32: its capabilities are bfloat16"
    assert skipped["speed/decode/8192"] == "it has no sparse_decode"
    assert "speed/ragged-bfloat16/3700/low" in timed
    assert not {name for name in timed if "bfloat16" not in name and "dense" not in name}
    assert not timed & set(skipped)
