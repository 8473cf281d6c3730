"""Rooflines: what was attained, under what was measured; nothing is made up."""

from __future__ import annotations

import json

import pytest
from recorded import ROOFLINE

from msa_harness.records import Sample
from msa_reports.cost import read_cost
from msa_reports.roofline import points, roofline_figures
from msa_reports.text import prefixed


@pytest.fixture
def cost(tmp_path):
    (tmp_path / "cost.json").write_text(json.dumps({"rows": [], "roofline": ROOFLINE}))
    return read_cost(tmp_path / "cost.json")


def timed(series, *values, subject="head"):
    return [
        Sample("speed", series, subject, "s", f"pair-{i}", value)
        for i, value in enumerate(values)
    ]  # fmt: skip


def test_a_point_is_work_by_the_median_time_of_head(cost):
    samples = [
        *timed("speed/prefill/2048/low", 9.0, subject="base"),
        *timed("speed/prefill/2048/low", 0.03, 0.02, 0.5),
        *timed("speed/prefill/20480/low", 1.0),
        *timed("speed/dense-bfloat16/2048", 1.0),
    ]
    (point,) = points(samples, cost.work)
    assert point.line == "MSA prefill, low overlap"
    assert (point.seconds, point.rate) == (0.03, pytest.approx(1e11))
    assert point.intensity == pytest.approx(3e9 / (4e6 * 2048))
    (base,) = points(samples[:1], cost.work)
    assert base.seconds == 9.0


def test_the_roof_is_what_was_measured_and_shares_are_of_it(cost):
    samples = [*timed("speed/dense/2048", 0.04), *timed("speed/prefill/4096/low", 14.0)]
    (figure,) = roofline_figures(samples, cost)
    assert figure.title == "Roofline, float32"
    assert [label for _, label in figure.legend] == [
        "roof", "dense prefill", "MSA prefill, low overlap",
    ]  # fmt: skip
    # 2e9 operations over 8.192e9 bytes: the slope, 1e10 B/s, allows 2.44e9 a second; 5e10 came.
    assert figure.rows[0][-2:] == ("50 GFLOP/s", "2048%")
    assert figure.rows[1][-2:] == ("500 MFLOP/s", "11.7%")
    assert "product of 8 x 8 matrices): 100 GFLOP/s, 10 GB/s" in figure.caption
    assert "too low" not in figure.caption


def test_a_roof_that_a_call_went_through_is_said_to_be_too_low(cost):
    (figure,) = roofline_figures(timed("speed/dense/2048", 0.01), cost)
    assert "The flat roof is too low" in figure.caption


def test_without_peaks_or_times_there_is_no_roofline(cost, tmp_path):
    assert list(roofline_figures([], cost)) == []
    (tmp_path / "cost.json").write_text('{"rows": []}')
    bare = read_cost(tmp_path / "cost.json")
    assert list(roofline_figures(timed("speed/dense/2048", 1.0), bare)) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.0, "5 B"), (1000.0, "1 kB"), (999.99, "1 kB"), (1.43e11, "143 GB"), (2e15, "2 PB")],
)
def test_prefixes(value, text):
    assert prefixed(value, "B") == text
