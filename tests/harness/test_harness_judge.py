"""Verdicts on samples of known truth."""

from __future__ import annotations

import gc
import json
import math
from datetime import date

import numpy as np
import pytest

from msa_harness.gates import parse_gates
from msa_harness.judge import judge, needs_more
from msa_harness.records import ERROR, INVALID, WRONG, Sample
from msa_harness.verdicts import Outcome, SeriesVerdict, Verdict, outcome_from_json, worst

TODAY = date(2026, 6, 1)
GATES = parse_gates("""
[[gate]]
series = "correctness/*"
method = "hard"
direction = "higher"
[[gate]]
series = "speed/startup"
method = "report"
[[gate]]
series = "speed/control/*"
method = "report"
[[gate]]
series = "speed/*"
method = "speed"
unit = "s"
threshold = 0.02
margin = 0.15
control = "speed/control/*"
drift = 0.05
[[gate]]
series = "work/attended*"
method = "exact"
must_not_decrease = true
[[gate]]
series = "work/*"
method = "exact"
threshold = 0.01
[[gate]]
series = "quality/*/dense"
method = "report"
[[gate]]
series = "quality/*/recall"
method = "binary"
direction = "higher"
margin = 0.10
confidence = 0.95
signal_from = "{series}/dense"
floor = 0.9
[[gate]]
series = "quality/*/nll"
method = "paired_mean"
threshold = 0.002
margin = 0.02
ceiling = 3.0
[[gate]]
series = "quality/*/share"
method = "paired_mean"
direction = "higher"
threshold = 0.005
margin = 0.03
[[waiver]]
series = "speed/waived"
reason = "agreed"
expires = 2026-06-30
[[waiver]]
series = "speed/late"
reason = "was agreed"
expires = 2026-01-31
""")


def pairs(name, logs, *, prefix="pair", base=0.1, start=0):
    """Speed samples whose log ratios are given."""
    rows = []
    for i, log in enumerate(logs, start=start):
        item, drift = f"{prefix}-{i:02d}", 1 + 0.3 * math.sin(i)
        for subject, value in (("base", base * drift), ("head", base * drift * math.exp(log))):
            rows.append(Sample("speed", name, subject, "s", item, value, repro="again"))
    return rows


WIGGLE = [0.03, -0.03, 0.04, -0.04, 0.02, -0.02, 0.05, -0.05]
CONTROL = pairs("speed/control/x", WIGGLE)


def around(slowdown, wiggle=WIGGLE):
    return [math.log(1 + slowdown) + w for w in wiggle]


def verdict_of(samples, name, *, gates=GATES, **options) -> SeriesVerdict:
    outcome = judge(samples, gates, TODAY, **options)
    return next(one for one in outcome.series if one.name == name)


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


def test_a_series_without_a_gate_is_an_error():
    one = verdict_of([Sample("x", "other/a", "head", "s", "a", 1.0)], "other/a")
    assert one.verdict is Verdict.ERROR
    assert "no [[gate]]" in one.note


# Speed.


def test_equal_speed_passes_with_every_number():
    samples = CONTROL + pairs("speed/a", around(0))
    outcome = judge(samples, GATES, TODAY)
    assert outcome.verdict is Verdict.PASS
    one = verdict_of(samples, "speed/a")
    assert one.low < 0 < one.high < 0.15
    assert (one.n, one.repro, one.direction, one.unit) == (8, "again", "lower", "s")
    assert 0.02 < one.mde < 0.15
    assert needs_more(one) is None
    assert one.head / one.base == pytest.approx(1 + one.effect)
    text = json.dumps(outcome.to_json({"python": "3"}), allow_nan=False)
    assert outcome_from_json(json.loads(text)) == outcome


def test_a_slowdown_is_a_regression_only_once_confirmed():
    first = CONTROL + pairs("speed/a", around(0.3))
    one = verdict_of(first, "speed/a")
    assert (one.verdict, needs_more(one)) == (Verdict.INCONCLUSIVE, "confirm")
    part = first + pairs("speed/a", around(0.3)[:5], prefix="confirm")
    assert needs_more(verdict_of(part, "speed/a")) == "confirm"
    control = pairs("speed/control/x", WIGGLE, prefix="confirm")
    whole = first + control + pairs("speed/a", around(0.28), prefix="confirm")
    one = verdict_of(whole, "speed/a")
    assert (one.verdict, needs_more(one)) == (Verdict.REGRESSION, None)
    assert one.effect == pytest.approx(0.28)
    assert judge(whole, GATES, TODAY).exit_code == 1


def test_a_slowdown_that_fresh_pairs_do_not_show_is_none():
    samples = (
        CONTROL + pairs("speed/a", around(0.3)) + pairs("speed/a", around(0.0), prefix="confirm")
    )
    one = verdict_of(samples, "speed/a")
    assert one.verdict is Verdict.PASS
    assert "not confirmed" in one.note


def test_noise_asks_for_more_up_to_the_cap_and_is_then_inconclusive():
    noise = [4 * w for w in WIGGLE]
    samples = CONTROL + pairs("speed/a", noise)
    assert needs_more(verdict_of(samples, "speed/a")) == "more"
    samples += pairs("speed/a", noise, start=8)
    one = verdict_of(samples, "speed/a")
    assert one.n == 16
    assert (one.verdict, needs_more(one)) == (
        (Verdict.PASS, None) if one.high < 0.15 else (Verdict.INCONCLUSIVE, None)
    )
    wild = [10 * w for w in WIGGLE]
    samples = CONTROL + pairs("speed/a", wild) + pairs("speed/a", wild, start=8)
    one = verdict_of(samples, "speed/a")
    assert (one.verdict, needs_more(one)) == (Verdict.INCONCLUSIVE, None)


def test_one_pair_is_no_answer():
    one = verdict_of(CONTROL + pairs("speed/a", [0.0]), "speed/a")
    assert (one.verdict, needs_more(one), one.n) == (Verdict.INCONCLUSIVE, "more", 1)


def test_faster_is_improved():
    one = verdict_of(CONTROL + pairs("speed/a", around(-0.3)), "speed/a")
    assert one.verdict is Verdict.IMPROVED


def test_holm_guards_many_series():
    # a slowdown that one series alone would show, one among forty does not
    alone = verdict_of(CONTROL + pairs("speed/a", around(0.08)), "speed/a")
    assert needs_more(alone) == "confirm"
    crowd = [row for i in range(40) for row in pairs(f"speed/b{i}", around(0))]
    among = verdict_of(CONTROL + crowd + pairs("speed/a", around(0.08)), "speed/a")
    assert needs_more(among) == "more"


@pytest.mark.parametrize("shift", [0.25, -0.25])
def test_a_control_that_moved_voids_the_speed_suite(shift):
    moved = pairs("speed/control/x", around(shift))
    outcome = judge(moved + pairs("speed/a", around(0.3)), GATES, TODAY)
    assert {one.verdict for one in outcome.series} == {Verdict.INVALID}
    assert "control moved by" in outcome.series[1].note
    assert all(one.more is None for one in outcome.series)


def test_a_control_that_moved_while_confirming_voids_too():
    samples = CONTROL + pairs("speed/a", around(0.3))
    samples += pairs("speed/a", around(0.3), prefix="confirm")
    samples += pairs("speed/control/x", around(0.3), prefix="confirm")
    assert verdict_of(samples, "speed/a").verdict is Verdict.INVALID


def test_speed_without_a_control_is_invalid():
    one = verdict_of(pairs("speed/a", around(0)), "speed/a")
    assert one.verdict is Verdict.INVALID
    assert "no control series" in one.note


def test_recorded_runs_are_compared_unpaired():
    assert verdict_of(
        CONTROL + pairs("speed/a", around(0)), "speed/a", mode="unpaired"
    ).verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)
    steady = [
        Sample("speed", "speed/control/x", s, "s", f"p{i}", 0.1 + i / 1e3)
        for s in ("base", "head")
        for i in range(6)
    ]
    slow = [
        Sample("speed", "speed/a", s, "s", f"p{i}", (0.1 + i / 1e3) * f)
        for s, f in (("base", 1.0), ("head", 1.4))
        for i in range(6)
    ]
    one = verdict_of(steady + slow, "speed/a", mode="unpaired")
    assert (one.verdict, one.more) == (Verdict.REGRESSION, None)
    other = [
        Sample("speed", "speed/control/x", s, "s", f"p{i}", (0.1 + i / 1e3) * f)
        for s, f in (("base", 1.0), ("head", 1.4))
        for i in range(6)
    ]
    assert verdict_of(other + slow, "speed/a", mode="unpaired").verdict is Verdict.INVALID


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


def check(item, value, subject="head", detail=""):
    return Sample("correctness", "correctness/a", subject, "check", item, value, detail=detail)


def nll(item, value, subject="head", *, detail="", name="quality/t/nll", cluster=None):
    cluster = item if cluster is None else cluster
    return Sample("quality", name, subject, "nats", item, value, cluster, detail)


def both(values, **options):
    return [
        row
        for i, (base, head) in enumerate(values)
        for row in (nll(f"i{i}", base, "base", **options), nll(f"i{i}", head, **options))
    ]


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


def test_a_check_that_head_no_longer_runs_is_invalid():
    rows = [check("a", 1.0), check("b", None, detail="skip"), check("b", 1.0, "base")]
    assert verdict_of(rows, "correctness/a").verdict is Verdict.INVALID
    assert verdict_of([check("a", 0.5)], "correctness/a").verdict is Verdict.ERROR
    assert verdict_of([check("a", None)], "correctness/a").verdict is Verdict.ERROR


def test_a_mended_check_is_an_improvement():
    rows = [check("a", 1.0), check("a", 0.0, "base")]
    assert verdict_of(rows, "correctness/a").verdict is Verdict.IMPROVED


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


# Quality.


def test_identical_outputs_pass_exactly():
    one = verdict_of(both([(2.0 + i / 10, 2.0 + i / 10) for i in range(8)]), "quality/t/nll")
    assert (one.verdict, one.effect, one.low, one.high) == (Verdict.PASS, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [
        (0.0, 0.005, "PASS"),
        (0.05, 0.005, "REGRESSION"),
        (-0.05, 0.005, "IMPROVED"),
        (0.0, 0.2, "INCONCLUSIVE"),
        (0.0001, 0.0, "PASS"),  # rounding, on every item alike
    ],
)
def test_means_are_judged_by_their_bounds(shift, spread, verdict):
    rng = np.random.default_rng(2)
    values = [(b, b + shift + spread * e) for b, e in rng.normal(2, 1, (24, 2)) - (0, 2)]
    one = verdict_of(both(values), "quality/t/nll")
    assert one.verdict == verdict
    flipped = both([(h, b) for b, h in values], name="quality/t/share")
    assert verdict_of(flipped, "quality/t/share").effect == pytest.approx(one.effect)


def test_items_of_one_document_are_no_sample():
    one = verdict_of(both([(2.0, 2.0)] * 8, cluster="same"), "quality/t/nll")
    assert one.verdict is Verdict.INCONCLUSIVE


def recall(base, head, dense=1.0, each=12, items=96):
    name, rows = "quality/t/recall", []
    for i in range(items):
        values = {"base": base(i), "head": head(i)}
        for subject, value in values.items():
            rows.append(
                Sample("quality", name, subject, "recall", f"i{i}", float(value), f"d{i // each}")
            )
        if dense is not None:
            rows.append(
                Sample(
                    "quality",
                    name + "/dense",
                    "head",
                    "recall",
                    f"i{i}",
                    float(i < dense * items),
                    f"d{i // each}",
                )
            )
    return rows


def always(_item):
    return True


def test_recall_passes_where_nothing_is_lost():
    one = verdict_of(recall(always, always), "quality/t/recall")
    assert (one.verdict, one.effect, one.n) == (Verdict.PASS, 0.0, 96)
    assert one.high < 0.10


def test_lost_recall_is_a_regression():
    one = verdict_of(recall(always, lambda i: i % 3 > 0), "quality/t/recall")
    assert one.verdict is Verdict.REGRESSION
    assert one.effect == pytest.approx(1 / 3)
    assert "32 lost, 0 won of 96" in one.note
    better = verdict_of(recall(lambda i: i % 3 > 0, always), "quality/t/recall")
    assert better.verdict is Verdict.IMPROVED


def test_a_handful_of_items_decides_nothing():
    few = verdict_of(recall(always, lambda i: i > 1, each=1, items=8), "quality/t/recall")
    assert few.verdict is Verdict.INCONCLUSIVE
    # one document that fails as a whole is one failure, not twelve
    one = verdict_of(recall(always, lambda i: i >= 12), "quality/t/recall")
    assert one.verdict is Verdict.INCONCLUSIVE


def test_no_signal_where_dense_fails():
    rows = recall(always, lambda _i: False, dense=0.7)
    one = verdict_of(rows, "quality/t/recall")
    assert one.verdict is Verdict.NO_SIGNAL
    assert "0.71" in one.note
    assert judge(rows, GATES, TODAY).verdict is Verdict.ERROR  # and nothing else gates
    missing = verdict_of(recall(always, always, dense=None), "quality/t/recall")
    assert missing.verdict is Verdict.INVALID
    odd = recall(always, always)
    odd[0] = Sample("quality", "quality/t/recall", "base", "recall", "i0", 0.5)
    assert verdict_of(odd, "quality/t/recall").verdict is Verdict.ERROR


def test_alone_head_meets_fixed_requirements():
    rows = [row for row in recall(always, lambda i: i % 2) if row.subject == "head"]
    one = verdict_of(rows, "quality/t/recall", mode="alone")
    assert one.verdict is Verdict.REGRESSION
    assert "wanted at least 0.9, got 0.5" in one.note
    good = [nll("a", 2.0), nll("b", 2.5)]
    assert verdict_of(good, "quality/t/nll", mode="alone").verdict is Verdict.PASS
    speed = [row for row in CONTROL + pairs("speed/a", around(0)) if row.subject == "head"]
    assert verdict_of(speed, "speed/a", mode="alone").verdict is Verdict.NEW
    assert judge(speed, GATES, TODAY, mode="alone").exit_code == 0
    failed = verdict_of([check("a", 0.0)], "correctness/a", mode="alone")
    assert failed.verdict is Verdict.REGRESSION


# The gate as a whole, on simulated machines.


@pytest.fixture
def quick_collections():
    """Holm's function in statsmodels collects garbage; frozen, a loaded torch costs it nothing."""
    gc.freeze()
    yield
    gc.unfreeze()


def gate_run(rng, slow, *, series=20, sd=0.04):
    """One gate run as the runner drives it; the first series is `slow`, the others are equal."""
    names = [f"speed/s{i}" for i in range(series)]
    effect = dict.fromkeys(names, 0.0) | {names[0]: math.log(1 + slow), "speed/control/x": 0.0}
    rows = [row for name in effect for row in pairs(name, effect[name] + rng.normal(0, sd, 8))]
    have = dict.fromkeys(effect, 8)
    while True:
        outcome = judge(rows, GATES, TODAY)
        wanted = {one.name: one.more for one in outcome.series if one.more}
        if not wanted:
            return outcome
        for name, request in wanted.items():
            count = have[name] if request == "confirm" else 4
            start = 0 if request == "confirm" else have[name]
            prefix = "confirm" if request == "confirm" else "pair"
            logs = effect[name] + rng.normal(0, sd, count)
            rows += pairs(name, logs, prefix=prefix, start=start)
            have[name] += 0 if request == "confirm" else count


@pytest.mark.usefixtures("quick_collections")
def test_equal_code_is_no_regression_and_passes():
    rng = np.random.default_rng(11)
    verdicts = [gate_run(rng, 0.0, series=6).verdict for _ in range(40)]
    assert Verdict.REGRESSION not in verdicts
    assert verdicts.count(Verdict.PASS) >= 38


@pytest.mark.usefixtures("quick_collections")
def test_a_tenth_slower_is_found_among_twenty_series():
    rng = np.random.default_rng(12)
    verdicts = [gate_run(rng, 0.10).verdict for _ in range(12)]
    assert verdicts.count(Verdict.REGRESSION) >= 10
