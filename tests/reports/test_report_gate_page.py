"""The page of the gate itself: what is recorded is shown, gaps are said, strings stay strings."""

from __future__ import annotations

import json

import pytest
from recorded import calibration, fault, mutant, power

from msa_harness.records import RunError
from msa_reports.evidence import has_evidence, read_evidence
from msa_reports.gate_report import write_gate_report
from msa_suites import cli


def write(folder, *, faults=None, calibrated=None, mutants=None):
    if faults is not None:
        (folder / "faults.json").write_text(json.dumps({"faults": faults}))
    if calibrated is not None:
        (folder / "calibration.json").write_text(json.dumps(calibrated))
    if mutants is not None:
        lines = "".join(json.dumps(row) + "\n" for row in mutants)
        (folder / "mutants.jsonl").write_text(lines)
    return folder


def shown(folder):
    paths = write_gate_report(folder)
    return paths.html.read_text(), paths.markdown.read_text()


def test_everything_in_order_is_said_to_be_so(tmp_path):
    rows = [mutant("m:1"), mutant("m:2", gate="", equivalent="x is not read")]
    write(tmp_path, faults=[fault("mean-pooling")], calibrated=calibration(), mutants=rows)
    page, comment = shown(tmp_path)
    assert "## ✓ SOUND" in comment
    for text in (
        "1 of 1 known fault caught",
        "20 PASS; 160 pairs of processes",
        "0% of 100 raised an alarm, at most 4%",
        "1 of 1 mutant killed (100%); 1 more are the same program",
        "Code slower by 10% is found in at least 97% of 100 gates; least often in speed/a.",
    ):
        assert text in page
    assert page.count('<svg class="chart"') == 3  # eight series take two plots, recall one
    assert "| speed/a | · MEASURED | 10% | 97% | 93% | 100% | 3 PASS | 7% |" in comment
    assert "EQUIVALENT" in page
    assert "x is not read" in page


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"faults": [fault("kept"), fault("lost", caught=False, gate="")]}, "MISSED"),
        ({"faults": [fault("idle", applied=False)]}, "NOT APPLIED"),
        ({"calibrated": calibration(alarms=0.02)}, "ALARM"),
    ],
)
def test_what_went_wrong_stands_first_and_spoils_the_verdict(tmp_path, changes, word):
    whole = {"faults": [fault("kept")], "calibrated": calibration(), "mutants": [mutant("m:1")]}
    _, comment = shown(write(tmp_path, **whole | changes))
    assert comment.startswith("## ? GAPS")
    marked = [line for line in comment.splitlines() if word in line]
    assert len(marked) == 1
    table = comment.splitlines().index(marked[0])
    assert comment.splitlines()[table - 1].startswith("|---|")


@pytest.mark.parametrize(
    "changes",
    [
        {"calibrated": calibration(found=0.9)},
        {"mutants": [mutant("m:1"), mutant("m:2", gate="")]},
        {"calibrated": {**calibration(), "simulated": [power("", 0.0, 0.0)]}},
    ],
)
def test_what_is_found_too_seldom_is_a_gap(tmp_path, changes):
    whole = {"faults": [fault("kept")], "calibrated": calibration(), "mutants": [mutant("m:1")]}
    _, comment = shown(write(tmp_path, **whole | changes))
    assert comment.startswith("## ? GAPS")


def test_what_is_missing_is_said_with_the_command_that_makes_it(tmp_path):
    page, comment = shown(write(tmp_path, faults=[fault("mean-pooling")]))
    assert comment.startswith("## ? GAPS")
    for text in ("msa-bench calibrate --gates 20", "msa-bench mutants --count 300"):
        assert text in page
        assert text in comment


def test_hostile_strings_are_text(tmp_path, hostile):
    rows = [fault(hostile, summary=hostile, detail=hostile, gate=hostile)]
    spoiled = calibration()
    spoiled["simulated"].append(power(hostile, 0.1, 0.5))
    write(tmp_path, faults=rows, calibrated=spoiled, mutants=[mutant(hostile, source=hostile)])
    page, comment = shown(tmp_path)
    assert page.count("<script") == 2
    assert "<img" not in page
    assert "\x1b" not in page + comment
    columns = [line.count("|") for line in comment.splitlines() if line.startswith("| ")]
    assert set(columns) == {7, 9}


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("faults.json", "{", "faults.json: Expecting"),
        ("faults.json", '{"faults": [{"name": 5}]}', "class: wanted str, got None"),
        ("faults.json", "[]", "document: wanted an object"),
        ("calibration.json", '{"pairs": true}', "pairs: wanted int, got True"),
        ("calibration.json", '{"pairs": 1, "real": {"PASS": 0.5}}', "PASS: wanted int, got 0.5"),
        ("mutants.jsonl", '{"mutant": "m"}\n7\n', "wanted"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, name, text, wanted):
    (tmp_path / name).write_text(text)
    with pytest.raises(RunError, match=name) as caught:
        read_evidence(tmp_path)
    assert wanted in str(caught.value)


def test_the_command_takes_a_directory_with_evidence(tmp_path, capsys):
    assert not has_evidence(tmp_path)
    assert cli.main(["report", str(tmp_path)]) == cli.ERROR_EXIT
    assert "run.json" in capsys.readouterr().err
    write(tmp_path, faults=[fault("mean-pooling")])
    assert cli.main(["report", str(tmp_path), "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)
    assert paths["html"].endswith("gate.html")
    (tmp_path / "faults.json").write_text("{")
    assert cli.main(["report", str(tmp_path)]) == cli.ERROR_EXIT
