from __future__ import annotations

from datetime import date

from msa_harness.gates import parse_gates
from msa_harness.judge import judge
from msa_harness.records import WRONG, Sample
from msa_harness.verdicts import Verdict
from msa_suites.plan import own_gates
from msa_suites.quality.samples import to_samples


def test_a_model_that_answers_nan_is_recorded_as_wrong():
    row = {"task": "msa_tail_nll", "metric": "nll_512", "item": "a", "cluster": "d"}
    good, bad = to_samples(
        [{**row, "value": 1.5}, {**row, "item": "b", "value": float("nan")}], subject="head"
    )
    assert (good.value, good.detail) == (1.5, "")
    assert bad.value is None
    assert bad.detail.startswith(WRONG)


def test_check_wants_recall_without_a_base():
    gates = parse_gates(own_gates().read_text())
    for score, verdict in ((1.0, Verdict.PASS), (0.0, Verdict.REGRESSION)):
        rows = [
            Sample("quality", f"quality/msa_facts/recall{of}", "head", "share", f"i{i}", value)
            for i in range(12)
            for of, value in (("", score), ("/dense", 1.0))
        ]
        outcome = judge(rows, gates, date(2026, 1, 1), mode="alone")
        found = {one.name: one.verdict for one in outcome.series}
        assert found["quality/msa_facts/recall"] is verdict
