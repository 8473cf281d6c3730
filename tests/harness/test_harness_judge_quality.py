"""Verdicts on quality: means by their bounds, recall by its lost items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msa_harness.judge import judge
from msa_harness.records import Sample
from msa_harness.verdicts import Verdict

from .judging import GATES, TODAY, nll, verdict_of


def both(values, **options):
    return [
        row
        for i, (base, head) in enumerate(values)
        for row in (nll(f"i{i}", base, "base", **options), nll(f"i{i}", head, **options))
    ]


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


def test_the_signal_is_that_of_bases_own_dense_attention():
    rows = recall(always, lambda _i: False, dense=0.0)
    rows += [replace(s, subject="base", value=1.0) for s in rows if s.series.endswith("/dense")]
    assert verdict_of(rows, "quality/t/recall").verdict is Verdict.REGRESSION


def test_alone_head_meets_fixed_requirements():
    rows = [row for row in recall(always, lambda i: i % 2) if row.subject == "head"]
    one = verdict_of(rows, "quality/t/recall", mode="alone")
    assert one.verdict is Verdict.REGRESSION
    assert "wanted at least 0.9, got 0.5" in one.note
    good = [nll("a", 2.0), nll("b", 2.5)]
    assert verdict_of(good, "quality/t/nll", mode="alone").verdict is Verdict.PASS
