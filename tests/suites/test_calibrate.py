"""``msa-bench calibrate`` on recorded self-tests: what it says, writes, and refuses."""

from __future__ import annotations

import json
import math
import random

import pytest

from msa_harness.gates import parse_gates
from msa_harness.records import RunHeader, RunStore, Sample
from msa_reports.evidence import read_evidence
from msa_suites import cli

GATES = """
[[gate]]
series = "speed/control/*"
method = "report"

[[gate]]
series = "speed/*"
method = "speed"
threshold = 0.02
margin = 0.10
pairs = 4
max_pairs = 8
control = "speed/control/*"
drift = 0.05

[[gate]]
series = "quality/*/dense"
method = "report"

[[gate]]
series = "quality/*"
method = "binary"
direction = "higher"
margin = 0.10
"""


def header(*, self_test=True, gates=GATES):
    return RunHeader(
        command="calibrate",
        argv=(),
        environment={},
        subjects={},
        judge={"self_test": self_test},
        profile="quick",
        seed=0,
        gates=parse_gates(gates).to_dict(),
    )


def samples(leaning=0.0):
    draw = random.Random(0)
    for number in range(8):
        item = f"pair-{number:02d}"
        for name in ("speed/decode", "speed/control/dense"):
            for side, shift in (("base", 0.0), ("head", leaning)):
                raw = tuple(math.exp(shift + draw.gauss(0, 0.01)) for _ in range(5))
                yield Sample(suite="speed", series=name, subject=side, unit="s", item=item,
                             value=sorted(raw)[2], cluster=item, raw=raw)  # fmt: skip
    for number in range(96):
        item, cluster = f"item-{number}", f"document-{number % 8}"
        for side in ("base", "head"):
            yield Sample(suite="quality", series="quality/facts/recall", subject=side,
                         unit="recall", item=item, value=1.0, cluster=cluster)  # fmt: skip


@pytest.fixture
def recorded(tmp_path):
    def make(name="run", *, leaning=0.0, verdict="PASS", **about):
        with RunStore.create(tmp_path / name, header(**about)) as store:
            store.append(samples(leaning))
        (tmp_path / name / "verdict.json").write_text(json.dumps({"verdict": verdict}))
        return str(tmp_path / name)

    return make


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where runs/ is made


def calibrate(*argv):
    return cli.main(["calibrate", "--gates", "0", "--simulations", "20", "--power", "5", *argv])


def test_a_recorded_self_test_gives_false_alarms_power_and_recall(recorded, tmp_path, capsys):
    out = tmp_path / "out"
    assert calibrate("--runs", recorded(), "--out", str(out), "--losses", "0.25", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "calibration.json").read_text())
    assert (document["pairs"], document["real"]) == (8, {"PASS": 1})
    identical, *slowed = document["simulated"]
    assert identical["verdicts"] == {"PASS": 20}
    assert [row["slowdown"] for row in slowed] == [0.02, 0.05, 0.10]
    assert slowed[-1]["own"] == {"REGRESSION": 5}
    assert document["recall"][-1]["own"] == {"REGRESSION": 5}
    read = read_evidence(out).calibration  # what the page of the gate reads
    assert read.identical.gates == 20
    assert {row.series for row in read.recall} == {"quality/facts/recall"}


def test_real_pairs_that_lean_to_one_side_raise_no_alarm(recorded, capsys):
    assert calibrate("--runs", recorded(leaning=0.04), "--json") == 0
    identical = json.loads(capsys.readouterr().out)["simulated"][0]
    assert identical["verdicts"].get("REGRESSION", 0) == 0


def test_the_table_names_what_was_simulated(recorded, capsys):
    assert calibrate("--runs", recorded(), "--slowdowns", "0.1") == 0
    shown = capsys.readouterr().out
    for text in ("real self-tests: 1 PASS; 8 pairs", "identical code", "speed/decode", "10%"):
        assert text in shown


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"self_test": False}, "wanted self-tests"),
        ({"gates": GATES.replace("0.05", "0.06")}, "which differs in gates"),
    ],
)
def test_runs_that_cannot_be_pooled_are_refused(recorded, capsys, about, text):
    other = recorded("other", **about)
    assert calibrate("--runs", recorded(), other) == cli.ERROR_EXIT
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ((), "wanted at least one self-test or recorded run"),
        (("--runs", "nowhere"), "nowhere"),
        (("--slowdowns", "1.5"), "wanted"),
    ],
)
def test_bad_input(argv, text, capsys):
    assert calibrate(*argv) == cli.ERROR_EXIT
    assert text in capsys.readouterr().err
