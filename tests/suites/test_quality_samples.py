from __future__ import annotations

from msa_harness.records import WRONG
from msa_suites.quality.samples import to_samples


def test_a_model_that_answers_nan_is_recorded_as_wrong():
    row = {"task": "msa_tail_nll", "metric": "nll_512", "item": "a", "cluster": "d"}
    good, bad = to_samples(
        [{**row, "value": 1.5}, {**row, "item": "b", "value": float("nan")}], subject="head"
    )
    assert (good.value, good.detail) == (1.5, "")
    assert bad.value is None
    assert bad.detail.startswith(WRONG)
