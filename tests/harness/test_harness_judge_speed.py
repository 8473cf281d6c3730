"""Verdicts on speed: bounds, confirmation by fresh pairs, Holm over suspects, the control."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from msa_harness.gates import parse_gates
from msa_harness.judge import judge, needs_more
from msa_harness.records import Sample
from msa_harness.verdicts import Verdict, outcome_from_json

from .judging import CONTROL, GATES, TABLE, TODAY, WIGGLE, around, pairs, verdict_of


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


@pytest.mark.parametrize(("times", "verdict"), [(3, "PASS"), (10, "INCONCLUSIVE")])
def test_noise_asks_for_more_up_to_the_cap_and_is_then_decided(times, verdict):
    noise = [times * w for w in WIGGLE]
    samples = CONTROL + pairs("speed/a", noise)
    assert needs_more(verdict_of(samples, "speed/a")) == "more"
    samples += pairs("speed/a", noise, start=8)
    one = verdict_of(samples, "speed/a")
    assert (one.n, one.verdict, needs_more(one)) == (16, verdict, None)
    assert (one.high < 0.15) is (verdict == "PASS")


def test_what_excludes_a_slowdown_has_a_confidence_of_its_own():
    samples = CONTROL + pairs("speed/a", [2.2 * w for w in WIGGLE])
    assert verdict_of(samples, "speed/a").verdict is Verdict.PASS
    strict = parse_gates(TABLE.replace("drift = 0.05", "drift = 0.05\npass_confidence = 0.999"))
    one = verdict_of(samples, "speed/a", gates=strict)
    assert (one.verdict, needs_more(one)) == (Verdict.INCONCLUSIVE, "more")
    assert one.high > 0.15
    assert (one.confidence, one.pass_confidence) == (0.99, 0.999)
    # What shows a slowdown, and what says that the machine moved, stay where they were.
    for name, field in (("a", "low"), ("control/x", "low"), ("control/x", "high")):
        loose, tight = (verdict_of(samples, f"speed/{name}", gates=g) for g in (GATES, strict))
        assert getattr(loose, field) == getattr(tight, field)


def test_a_pass_excludes_no_less_than_the_resolution():
    coarse = parse_gates(TABLE.replace("drift = 0.05", "drift = 0.05\nresolution = 0.05"))
    quiet = [w / 20 for w in WIGGLE]
    samples = pairs("speed/control/x", quiet)
    for name, slowdown in (("same", 0.0), ("faster", -0.3), ("slower", 0.03)):
        samples += pairs(f"speed/{name}", around(slowdown, quiet))
    samples += pairs("speed/slower", around(0.03, quiet), prefix="confirm")
    plain, shown = (
        {one.name: one for one in judge(samples, gates, TODAY).series} for gates in (GATES, coarse)
    )
    assert (shown["speed/same"].verdict, shown["speed/same"].high) == (Verdict.PASS, 0.05)
    assert plain["speed/same"].high < 0.01
    assert shown["speed/faster"].verdict is Verdict.IMPROVED
    assert shown["speed/slower"].verdict is Verdict.REGRESSION
    for name in ("speed/faster", "speed/slower", "speed/control/x"):
        assert shown[name].high == plain[name].high < 0.05


def test_one_pair_is_no_answer():
    one = verdict_of(CONTROL + pairs("speed/a", [0.0]), "speed/a")
    assert (one.verdict, needs_more(one), one.n) == (Verdict.INCONCLUSIVE, "more", 1)


def test_faster_is_improved():
    one = verdict_of(CONTROL + pairs("speed/a", around(-0.3)), "speed/a")
    assert one.verdict is Verdict.IMPROVED


def test_one_spoilt_pair_hides_no_slowdown():
    spoilt = around(0.3)
    spoilt[2] += 3.0
    assert needs_more(verdict_of(CONTROL + pairs("speed/a", spoilt), "speed/a")) == "confirm"
    equal = around(0)
    equal[5] += 3.0
    assert verdict_of(CONTROL + pairs("speed/a", equal), "speed/a").verdict is Verdict.PASS


def test_noise_in_the_first_fresh_pairs_does_not_lose_a_slowdown():
    noisy = around(0.1, [3 * w for w in WIGGLE])
    samples = CONTROL + pairs("speed/a", around(0.1)) + pairs("speed/a", noisy, prefix="confirm")
    one = verdict_of(samples, "speed/a")
    assert (one.verdict, needs_more(one)) == (Verdict.INCONCLUSIVE, "confirm")
    samples += pairs("speed/a", around(0.1, [w / 9 for w in WIGGLE]), prefix="confirm", start=8)
    one = verdict_of(samples, "speed/a")
    assert (one.verdict, one.n, needs_more(one)) == (Verdict.REGRESSION, 16, None)


def test_fresh_pairs_that_stay_noisy_end_inconclusive_at_the_cap():
    noisy = around(0.1, [9 * w for w in WIGGLE])
    samples = CONTROL + pairs("speed/a", around(0.1))
    for start in (0, 8):
        samples += pairs("speed/a", noisy, prefix="confirm", start=start)
    one = verdict_of(samples, "speed/a")
    assert (one.verdict, one.n, needs_more(one)) == (Verdict.INCONCLUSIVE, 16, None)


def test_holm_guards_many_suspects():
    # What fresh pairs show of one suspect alone, they do not show of one among forty.
    def confirmed(name, size):
        return pairs(name, around(0.3)) + pairs(name, around(size), prefix="confirm")

    alone = verdict_of(CONTROL + confirmed("speed/a", 0.12), "speed/a")
    assert alone.verdict is Verdict.REGRESSION
    crowd = [row for i in range(39) for row in confirmed(f"speed/b{i}", 0)]
    among = verdict_of(CONTROL + crowd + confirmed("speed/a", 0.12), "speed/a")
    assert among.verdict is not Verdict.REGRESSION
    # Series that nobody suspects do not count.
    innocent = [row for i in range(39) for row in pairs(f"speed/b{i}", around(0))]
    among = verdict_of(CONTROL + innocent + confirmed("speed/a", 0.12), "speed/a")
    assert among.verdict is Verdict.REGRESSION


def turned(by, times=2.5):
    """Noise of the same size that is another series' own."""
    return [times * w for w in random.Random(by).sample(WIGGLE, 8)]


@pytest.mark.parametrize(
    ("others", "verdict"), [(0, "INCONCLUSIVE"), (3, "INCONCLUSIVE"), (7, "PASS")]
)
def test_the_noise_of_a_series_is_judged_by_that_of_the_others(others, verdict):
    samples = CONTROL + pairs("speed/a", [3 * w for w in WIGGLE])
    for i in range(others):
        samples += pairs(f"speed/b{i}", turned(i + 1))
    one = verdict_of(samples, "speed/a")
    assert one.verdict is Verdict[verdict]
    # Who has not had its pairs yet says nothing of the noise, nor does what one gets beyond them.
    samples += pairs("speed/late", WIGGLE[:3])
    if others:
        samples += pairs("speed/b0", [9 * w for w in WIGGLE], start=8)
    assert verdict_of(samples, "speed/a") == one


def test_others_of_the_very_same_noise_say_nothing():
    samples = CONTROL + pairs("speed/a", [3 * w for w in WIGGLE])
    alone = verdict_of(samples, "speed/a")
    for i in range(7):
        samples += pairs(f"speed/b{i}", [2.5 * w for w in WIGGLE])
    beside = verdict_of(samples, "speed/a")
    assert (beside.verdict, beside.high) == (Verdict.INCONCLUSIVE, pytest.approx(alone.high))


def test_a_mean_of_the_others_is_judged_by_itself():
    made = [replace(row, raw=()) for row in pairs("speed/weighted", [0.3 * w for w in WIGGLE])]
    alone = verdict_of(CONTROL + made, "speed/weighted")
    others = [row for i in range(7) for row in pairs(f"speed/b{i}", turned(i + 1))]
    assert verdict_of(CONTROL + made + others, "speed/weighted") == alone


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


def recorded(name, slowdown=0.0):
    """Two runs of one series whose values belong to no pairs."""
    return [
        Sample("speed", name, subject, "s", f"p{i}", (0.1 + i / 1e3) * factor)
        for subject, factor in (("base", 1.0), ("head", 1 + slowdown))
        for i in range(6)
    ]


def test_recorded_runs_are_compared_unpaired():
    # Without pairs, the drift that both sides of a pair share is noise.
    drifting = CONTROL + pairs("speed/a", around(0))
    one = verdict_of(drifting, "speed/a", mode="unpaired")
    assert (one.verdict, one.more) == (Verdict.INCONCLUSIVE, None)
    steady, slow = recorded("speed/control/x"), recorded("speed/a", 0.4)
    one = verdict_of(steady + slow, "speed/a", mode="unpaired")
    assert (one.verdict, one.more) == (Verdict.REGRESSION, None)
    moved = recorded("speed/control/x", 0.4)
    assert verdict_of(moved + slow, "speed/a", mode="unpaired").verdict is Verdict.INVALID


def test_alone_speed_is_new():
    speed = [row for row in CONTROL + pairs("speed/a", around(0)) if row.subject == "head"]
    assert verdict_of(speed, "speed/a", mode="alone").verdict is Verdict.NEW
    assert judge(speed, GATES, TODAY, mode="alone").exit_code == 0
