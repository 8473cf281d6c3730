"""The command line as its users drive it: two small outside implementations, one judge."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import textwrap
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from msa_suites import cli
from msa_suites.models.loading import EMBEDDED

REPOSITORY = Path(__file__).parents[2]

GOOD = """
from msa import reference

CAPABILITIES = {"dtypes": ["float32"]}
block_scores = reference.block_scores
select_blocks = reference.select_blocks
sparse_attention = reference.sparse_attention
"""

MEAN = (
    GOOD
    + """
import torch


def block_scores(q_idx, k_idx, *, cu_q, cu_k, block, scale):
    from msa.scorers import find_scorer

    return find_scorer("mean")(q_idx, k_idx, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale)
"""
)

HANG = (
    GOOD
    + """
def select_blocks(*args, **kwargs):
    while True:
        pass
"""
)

CRASH = (
    GOOD
    + """
def select_blocks(*args, **kwargs):
    import os, signal

    os.kill(os.getpid(), signal.SIGSEGV)
"""
)

LEAK = (
    GOOD
    + """
def select_blocks(*args, **kwargs):
    import time

    kept = []
    while True:
        kept.append(b"x" * 4_000_000)
        time.sleep(0.001)
"""
)

CASES = [
    {"name": "small", "q_lens": [70], "k_lens": [70], "Hq": 2, "Hkv": 1, "D": 16, "Di": 16,
     "block": 16, "topk": 2}
]  # fmt: skip


def bench(where, *argv):
    """A command in this process: importing the judge takes longer than many a gate."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(where), redirect_stdout(out), redirect_stderr(err):
        code = cli.main(list(argv))
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def bench_by_itself(where, *argv):
    """The same as a user starts it."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "msa_suites", *argv],
        capture_output=True,
        text=True,
        cwd=where,
        timeout=280,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def folder(tmp_path):
    """``base`` and ``head`` each with a module ``theirs``, and a file of cases."""

    def make(base, head):
        for label, source in (("base", base), ("head", head)):
            (tmp_path / label).mkdir()
            (tmp_path / label / "theirs.py").write_text(textwrap.dedent(source))
        lines = "".join(json.dumps(case) + "\n" for case in CASES)
        (tmp_path / "cases.jsonl").write_text(lines)
        return tmp_path

    return make


def gate(folder, *more, start=bench):
    options = ["--implementation", "theirs", "--base-path", "base", "--head-path", "head"]
    options += ["--suite", "correctness", "--cases", "cases.jsonl", "--out", "run", "--json"]
    return start(folder, "gate", *options, "--threads", "1", *more)


def test_a_good_change_passes(folder):
    where = folder(GOOD, GOOD + "# a comment\n")
    done = gate(where)
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (0, "PASS"), done.stdout + done.stderr
    assert {"correctness/selection", "correctness/scores"} <= {
        series["name"] for series in document["series"]
    }
    written = {path.name for path in (where / "run").iterdir()}
    assert {"run.json", "samples.jsonl", "verdict.json", "report.md", "report.html"} <= written


@pytest.mark.slow  # tests/workflows has this change on its whole way
def test_mean_pooling_is_a_regression(folder):
    where = folder(GOOD, MEAN)
    done = gate(where, start=bench_by_itself)
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (1, "REGRESSION")
    failed = {s["name"]: s for s in document["series"] if s["verdict"] == "REGRESSION"}
    assert "correctness/scores" in failed
    repeated = failed["correctness/scores"]["repro"]
    assert repeated.startswith("msa-bench conformance --implementation theirs --path head")
    assert repeated.endswith("--check scores --case small")
    recorded = json.loads((where / "run" / "verdict.json").read_text())
    assert recorded["verdict"] == "REGRESSION"
    assert (where / "run" / "report.html").stat().st_size > 1000
    # The run is there: a second one may not write into it, and --resume measures nothing again.
    again = gate(where)
    assert again.returncode == 2
    assert "a run is at run already" in again.stderr
    lines = (where / "run" / "samples.jsonl").read_text()
    assert gate(where, "--resume").returncode == 1
    assert (where / "run" / "samples.jsonl").read_text() == lines
    compared = bench(where, "compare", "run", "run", "--json")
    assert compared.returncode == 1


REFUSING = """
CAPABILITIES = {"dtypes": ["float16"]}


def sparse_attention(q, *rest, **settings):
    raise TypeError(f"q: wanted float16, got {q.dtype}")
"""


@pytest.mark.parametrize(
    ("less", "words"),
    [("\ndel sparse_attention\n", "has no attribute"), (REFUSING, "wanted float16, got")],
)
def test_what_head_no_longer_offers_is_a_regression(folder, less, words):
    done = gate(folder(GOOD, GOOD + less))
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (1, "REGRESSION"), done.stderr
    worse = {s["name"]: s["note"] for s in document["series"] if s["verdict"] == "REGRESSION"}
    assert words in worse["correctness/attention"]


MUTE = """


def sparse_attention(*args, **settings):
    return reference.sparse_attention(*args, **settings)[0], None
"""


def test_a_result_that_head_no_longer_returns_does_not_pass(folder):
    where = folder(GOOD, GOOD + MUTE)
    done = gate(where)
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (4, "INVALID"), done.stderr
    lost = {s["name"]: (s["verdict"], s["note"]) for s in document["series"]}
    assert lost["correctness/attention_lse"][0] == "REMOVED"
    assert "it returns no LSE" in lost["correctness/attention_lse"][1]


ONLY_ATTEND = """
from msa import fast

attend = fast.attend
"""


@pytest.mark.parametrize("base", [ONLY_ATTEND, pytest.param(GOOD, marks=pytest.mark.slow)])
def test_a_suite_that_cannot_run_is_neither_a_regression_nor_a_pass(folder, base):
    where = folder(base, ONLY_ATTEND)
    suites = ("--suite", "quality", "--suite", "method", "--profile", "quick")
    done = gate(where, *suites)
    document = json.loads(done.stdout)
    quality = [s for s in document["series"] if s["suite"] == "quality"]
    assert quality
    assert any("it has no block_scores" in s["note"] for s in quality)
    if base == ONLY_ATTEND:
        assert (done.returncode, document["verdict"]) == (2, "ERROR"), done.stderr
        assert all(s["verdict"] == "NO_SIGNAL" for s in quality)
        again = gate(where, *suites, "--resume")  # reasons that are recorded are no second sample
        assert again.returncode == 2, again.stderr
        resumed = json.loads(again.stdout)["series"]
        before, after = ({s["name"]: s for s in each} for each in (document["series"], resumed))
        assert after == before
    else:
        assert done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (HANG, "took longer than 5 s and was killed"),
        (CRASH, "signal SIGSEGV"),
        (LEAK, "wanted at most 1.5 GiB of memory, got"),
    ],
)
def test_a_hang_a_crash_and_a_leak_are_reported_as_what_they_are(folder, source, words):
    done = gate(folder(GOOD, source), "--timeout", "5", "--memory", "1.5")
    assert done.returncode == 1, done.stderr
    notes = " ".join(series["note"] for series in json.loads(done.stdout)["series"])
    assert words in notes


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["gate", "--base", "no-such-rev"], "wanted a commit"),
        (["gate", "--base", "HEAD", "--base-path", "."], "got both"),
        (["gate", "--suite", "qualty"], "did you mean quality?"),
        (["gate", "--may-differ", "tourch"], "did you mean torch?"),
        (["gate", "--base-python", "no-such-python"], "wanted a Python interpreter"),
        (["check", "--cases", "none.jsonl"], "none.jsonl"),
        (["check", "--model", "./nowhere", "--suite", "quality"], "wanted a model directory"),
        (["check", "--model", "broken", "--suite", "quality"], "wanted a whole model"),
        (["conformance", "--implementation", "tourch"], "torch"),
        (["conformance", "--implementation", "nothing:here"], "nothing"),
        (["compare", "nowhere", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["sweep", "--scorers", "maxx"], "did you mean max"),
        (["sweep", "--budgets", "1"], "local + 1 sink blocks that are forced, got 1"),
        (["sweep", "--budgets", "64"], "MSA equals dense attention"),
        (["gate", "--resume", "--out", "nowhere"], "wanted an interrupted run"),
    ],
)
def test_bad_input_is_exit_2_and_one_line(tmp_path, argv, words, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "broken" in argv:
        shutil.copytree(EMBEDDED, "broken")
        weights = next(Path("broken").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:1000])
    assert cli.main([*argv, "--repo", str(REPOSITORY)] if argv[0] == "gate" else argv) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without CUDA")
@pytest.mark.parametrize("argv", [["conformance"], ["check", "--suite", "correctness"]])
def test_a_device_that_is_not_there_is_no_failed_check(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*argv, "--device", "cuda"]) == 2
    said = capsys.readouterr()
    assert "device: wanted one that torch" in said.out + said.err
