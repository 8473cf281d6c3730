"""Runs that are old, foreign, in part or hostile, through the command line: shown or refused."""

from __future__ import annotations

import json

import pytest

from msa_harness.verdicts import Verdict
from msa_suites import cli


def reported(capsys, run):
    """The exit code, the page, the comment, and what was printed."""
    code = cli.main(["report", str(run)])
    files = [run / name for name in ("report.html", "report.md")]
    return code, *(f.read_text(encoding="utf-8") if f.exists() else "" for f in files), (
        capsys.readouterr()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "wanted"),
    [
        ("run.json", {"schema": "msa-bench/run/0"}, "run/1', got 'msa-bench/run/0'"),
        ("run.json", {"schema": "other/1"}, "wanted 'msa-bench/run/1', got 'other/1'"),
        ("run.json", "PK\x03\x04", "wanted JSON"),
        ("run.json", "[]", "run.json: "),
        ("samples.jsonl", '{"suite": "a", "seconds": 3}\n', "samples.jsonl:1: wanted the fields"),
        ("verdict.json", '{"totals": {}}', "wanted an object with verdict and series"),
        ("sweep.json", '{"rows": "all"}', "sweep.json: rows: wanted list"),
        ("cost.json", "null", "cost.json: wanted an object of `cost --json`"),
        ("faults.json", "7", "faults.json: document: wanted an object"),
    ],
)  # fmt: skip
def test_an_older_or_foreign_file_is_refused_by_name(make_run, mixed, capsys, name, change, wanted):
    run = make_run(mixed)
    path = run / name
    if isinstance(change, dict):
        change = json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change})
    path.write_text(change, encoding="utf-8")
    code, page, comment, printed = reported(capsys, run)
    assert (code, page, comment, printed.out) == (cli.ERROR_EXIT, "", "", "")
    assert wanted in printed.err
    assert printed.err.count("\n") == 1  # no traceback
    assert str(path) in printed.err


def test_a_page_that_stands_is_kept_when_its_run_is_broken(make_run, mixed, capsys):
    run = make_run(mixed)
    _, before, _, _ = reported(capsys, run)
    (run / "verdict.json").write_text("{")
    code, after, _, _ = reported(capsys, run)
    assert (code, after) == (cli.ERROR_EXIT, before)


def test_a_suite_without_samples_is_shown_and_said(make_run, mixed, capsys):
    run = make_run(mixed, speed=False)
    samples = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in samples if json.loads(line)["suite"] != "speed"]
    (run / "samples.jsonl").write_text("".join(kept))
    code, page, _, printed = reported(capsys, run)
    assert code == 0
    assert "Suite speed: verdict.json judges it, and the run has no sample of it." in page
    assert "speed/prefill/8192/high" in page
    assert "Suite quality" not in page
    assert "REGRESSION" in printed.out


def test_a_suite_without_a_verdict_is_shown_and_said(make_run, mixed, capsys):
    run = make_run(mixed)
    document = json.loads((run / "verdict.json").read_text())
    document["series"] = [s for s in document["series"] if s["suite"] != "quality"]
    (run / "verdict.json").write_text(json.dumps(document))
    code, page, _, _ = reported(capsys, run)
    assert code == 0
    assert "Suite quality: the run has samples of it, and verdict.json says nothing of it." in page


def test_hostile_strings_reach_neither_terminal_nor_runner(make_run, make_series, capsys, hostile):
    bad = make_series(
        name=hostile, suite=hostile, note=hostile, repro=hostile, verdict=Verdict.ERROR
    )
    run = make_run([bad], text=hostile.replace("\ud800", ""))
    code, page, comment, printed = reported(capsys, run)
    assert code == 0
    assert "<script>window" not in page
    assert "\x1b[31m" not in printed.out
    for line in (printed.out + comment).splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
