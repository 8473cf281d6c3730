"""Verdicts on a run, on what every method asks first, on checks and on exact counts."""

from __future__ import annotations

import json

import pytest

from msa_harness.gates import parse_gates
from msa_harness.judge import judge
from msa_harness.records import ERROR, INVALID, WRONG, Sample
from msa_harness.verdicts import Outcome, Verdict, worst

from .judging import CONTROL, GATES, TODAY, around, check, nll, pairs, verdict_of


def test_precedence_and_exit_codes():
    order = ["REGRESSION", "ERROR", "INVALID", "INCONCLUSIVE", "PASS"]
    for i, name in enumerate(order):
        assert worst(Verdict(n) for n in order[i:]) is Verdict(name)
    codes = {v: Outcome(Verdict(v), ()).exit_code for v in order}
    assert codes == {"PASS": 0, "REGRESSION": 1, "ERROR": 2, "INCONCLUSIVE": 3, "INVALID": 4}
    assert worst([Verdict.IMPROVED, Verdict.NEW, Verdict.WAIVED]) is Verdict.PASS
    assert worst([Verdict.REMOVED, Verdict.INCONCLUSIVE]) is Verdict.INVALID
    assert worst([]) is Verdict.ERROR


def test_nothing_measured_is_an_error():
    outcome = judge([], GATES, TODAY)
    assert outcome.verdict is Verdict.ERROR
    assert any("nothing" in note for note in outcome.notes)


def test_a_suite_that_measured_nothing_is_an_error():
    outcome = judge(CONTROL + pairs("speed/a", around(0)), GATES, TODAY, suites=["quality"])
    assert outcome.verdict is Verdict.ERROR
    assert any("quality" in note for note in outcome.notes)
    only_reports = judge([Sample("speed", "speed/startup", "head", "s", "a", 1.0)], GATES, TODAY)
    assert only_reports.verdict is Verdict.ERROR


def test_a_report_above_its_ceiling_voids_the_run():
    gates = parse_gates('[[gate]]\nseries = "*"\nmethod = "report"\nceiling = 0.1')
    quiet, busy = (
        [Sample("speed", "speed/machine/load", "head", "share", "a", value)] for value in (0.1, 0.2)
    )
    assert verdict_of(quiet, "speed/machine/load", gates=gates).verdict is Verdict.NO_SIGNAL
    one = verdict_of(busy, "speed/machine/load", gates=gates)
    assert one.verdict is Verdict.INVALID
    assert "wanted at most 0.1, got 0.2" in one.note


def test_conditions_out_of_bounds_void_clock_times_and_leave_wrong_answers():
    text = """
[[gate]]
series = "speed/machine/*"
method = "report"
ceiling = 0.1
[[gate]]
series = "speed/control/*"
method = "report"
[[gate]]
series = "speed/*"
method = "speed"
threshold = 0.02
margin = 0.15
"""
    gates = parse_gates(text)
    rows = [*pairs("speed/a", around(0.5), prefix="confirm"), *pairs("speed/a", around(0.5))]
    rows += [Sample("speed", "speed/b", "head", "s", "x", None, detail="wrong: zeros")]
    rows += [Sample("speed", "speed/machine/x", "head", "share", "a", -0.2, detail="head is slow")]
    named = {one.name: one for one in judge(rows, gates, TODAY).series}
    assert named["speed/machine/x"].note == "wanted at most 0.1, got -0.2; head is slow"
    assert named["speed/a"].verdict is Verdict.INVALID
    assert "speed/machine/x: wanted at most 0.1" in named["speed/a"].note
    assert named["speed/a"].more is None
    assert named["speed/b"].verdict is Verdict.REGRESSION


def test_a_series_without_a_gate_is_an_error():
    one = verdict_of([Sample("x", "other/a", "head", "s", "a", 1.0)], "other/a")
    assert one.verdict is Verdict.ERROR
    assert "no [[gate]]" in one.note


def test_waivers_apply_until_they_expire():
    confirmed = [
        row
        for name in ("speed/waived", "speed/late")
        for prefix in ("pair", "confirm")
        for row in pairs(name, around(0.3), prefix=prefix)
    ]
    outcome = judge(CONTROL + confirmed, GATES, TODAY)
    verdicts = {one.name: one for one in outcome.series}
    assert verdicts["speed/waived"].verdict is Verdict.WAIVED
    assert "agreed" in verdicts["speed/waived"].note
    assert verdicts["speed/late"].verdict is Verdict.REGRESSION
    assert "expired waiver for speed/late" in outcome.notes[0]


# What every method asks first.


@pytest.mark.parametrize(
    ("base", "head", "verdict", "note"),
    [
        ([1.0], [], "REMOVED", "head has no value"),
        ([], [1.0], "NEW", "base has no such series"),
        ([1.0], [WRONG + "not finite"], "REGRESSION", "head answers wrongly"),
        ([WRONG + "x"], [WRONG + "x"], "REGRESSION", "so does base"),
        ([WRONG + "x"], [1.0], "INVALID", "base answers wrongly"),
        ([1.0], [ERROR + "killed"], "ERROR", "head could not be measured: i0: error: killed"),
        ([ERROR + "killed"], [1.0], "ERROR", "base could not be measured"),
        ([INVALID + "context 64 within k blocks"], [1.0], "INVALID", "context 64"),
        (["needs CUDA"], ["needs CUDA"], "NO_SIGNAL", "skipped: i0: needs CUDA"),
        ([""], [""], "ERROR", "no reason"),
        ([1.0, 1.0, 1.0], [1.0, 1.0, "too long"], "INVALID", "no value for 1 of 3 items"),
        ([1.0, 1.0, 1.0], [1.0, 1.0], "INVALID", "no value for 1 of 3 items"),
    ],
)
def test_missing_values_are_never_a_pass(base, head, verdict, note):
    rows = []
    for subject, values in (("base", base), ("head", head)):
        for i, value in enumerate(values):
            text = isinstance(value, str)
            number, detail = (None, value) if text else (value, "")
            rows.append(nll(f"i{i}", number, subject, detail=detail))
    one = verdict_of(rows, "quality/t/nll")
    assert one.verdict == verdict
    assert note in one.note


def test_units_must_agree():
    rows = [nll("a", 1.0), Sample("quality", "quality/t/nll", "base", "bits", "a", 1.0)]
    assert "bits, nats" in verdict_of(rows, "quality/t/nll").note
    late = [Sample("speed", "speed/a", "head", "ms", "a", 1.0)]
    assert "unit: wanted s, got ms" in verdict_of(late, "speed/a").note


# Correctness.


def test_all_checks_must_pass():
    one = verdict_of(
        [check("a", 1.0), check("b", 1.0), check("c", None, detail="no GPU")], "correctness/a"
    )
    assert (one.verdict, one.n, one.effect) == (Verdict.PASS, 2, 0.0)
    assert "1 skipped" in one.note


def test_a_failed_check_is_a_regression_that_names_it():
    rows = [check(f"c{i}", float(i > 4), detail="off by one" if i <= 4 else "") for i in range(9)]
    rows += [check("c1", 0.0, "base"), check("c2", 1.0, "base")]
    one = verdict_of(rows, "correctness/a")
    assert one.verdict is Verdict.REGRESSION
    assert "5 of 9 checks failed: c0: off by one" in one.note
    assert "and 2 more" in one.note
    assert "base fails 1 of them too" in one.note


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        pytest.param(
            [check("a", 1.0), check("b", None, detail="skip"), check("b", 1.0, "base")],
            "INVALID",
            id="head no longer runs it",
        ),
        pytest.param([check("a", 0.5)], "ERROR", id="neither passed nor failed"),
        pytest.param([check("a", None)], "ERROR", id="no value and no reason"),
        pytest.param([check("a", 1.0), check("a", 0.0, "base")], "IMPROVED", id="mended"),
    ],
)
def test_what_a_check_may_say(rows, verdict):
    assert verdict_of(rows, "correctness/a").verdict == verdict


def test_alone_a_failed_check_is_a_regression():
    failed = verdict_of([check("a", 0.0)], "correctness/a", mode="alone")
    assert failed.verdict is Verdict.REGRESSION


# Work.


@pytest.mark.parametrize(
    ("name", "base", "head", "verdict", "effect"),
    [
        ("work/flops", 100.0, 100.0, "PASS", 0.0),
        ("work/flops", 100.0, 100.5, "PASS", 0.005),
        ("work/flops", 100.0, 110.0, "REGRESSION", 0.1),
        ("work/flops", 100.0, 80.0, "IMPROVED", -0.2),
        ("work/flops", 0.0, 5.0, "REGRESSION", None),
        ("work/flops", 0.0, 0.0, "PASS", 0.0),
        ("work/attended_tokens", 100.0, 101.0, "REGRESSION", 0.01),
        ("work/attended_tokens", 100.0, 99.0, "REGRESSION", -0.01),
    ],
)
def test_counts_are_exact(name, base, head, verdict, effect):
    rows = [Sample("work", name, s, "n", "case", v) for s, v in (("base", base), ("head", head))]
    one = verdict_of(rows, name)
    assert one.verdict == verdict
    assert one.effect == (None if effect is None else pytest.approx(effect))
    json.dumps(one.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "head", "said", "unsaid"),
    [
        ("work/flops", 110.0, "likely cause: a dense path", "missing"),
        ("work/attended_tokens", 101.0, "101 on head", "missing"),
        ("work/attended_tokens", 99.0, "what should be counted here is missing", "likely cause"),
    ],
)
def test_a_count_of_one_case_says_what_its_change_means(name, head, said, unsaid):
    rows = [Sample("work", name, s, "n", "case", v) for s, v in (("base", 100.0), ("head", head))]
    note = verdict_of(rows, name).note
    assert said in note
    assert unsaid not in note


def test_an_increase_is_not_hidden_by_a_decrease_elsewhere():
    rows = [
        Sample("work", "work/flops", s, "n", c, v)
        for c, s, v in (
            ("a", "base", 100.0),
            ("a", "head", 10.0),
            ("b", "base", 100.0),
            ("b", "head", 120.0),
        )
    ]
    one = verdict_of(rows, "work/flops")
    assert one.verdict is Verdict.REGRESSION
    assert "b: 100 on base, 120 on head" in one.note
