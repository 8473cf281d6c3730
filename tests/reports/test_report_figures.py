from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_harness.records import RunError, Sample
from msa_harness.verdicts import SeriesVerdict, Verdict
from msa_reports import shapes, svg
from msa_reports.cost import read_cost
from msa_reports.plots import (
    crossover_figures,
    distribution_figure,
    paired_effects,
    prefill_times,
)
from msa_reports.scale import Axis, Scale
from msa_reports.sweep import budget_figures, read_sweep, scorer_figure


def _speed(line, subject, *values):
    return [
        Sample("speed", f"speed/{line}", subject, "s", f"pair-{i}", value)
        for i, value in enumerate(values)
    ]


def test_prefill_times_are_medians_of_head_by_length():
    samples = [
        *_speed("dense/2048", "base", 9.0),
        *_speed("dense/2048", "head", 1.0, 5.0, 2.0),
        *_speed("dense/16384", "base", 3.0),
        *_speed("prefill/2048/low", "head", 4.0),
        *_speed("decode/2048", "head", 4.0),
        *_speed("dense-bfloat16/2048", "head", 7.0),
        Sample("speed", "speed/prefill/2048/high", "head", "s", "pair-0", None, detail="skipped"),
    ]
    assert prefill_times(samples) == {
        "bfloat16": {"dense": {2048: 7.0}},
        "float32": {"dense": {2048: 2.0, 16384: 3.0}, "MSA, low overlap": {2048: 4.0}},
    }


def test_speed_up_and_limit_are_in_the_table_and_in_the_plot():
    times = {"dense": {2048: 0.1, 4096: 0.4}, "MSA, low overlap": {2048: 0.2, 4096: 0.1}}
    time, speed = crossover_figures(times, {2048: 0.5, 4096: 5.0, 9: 9.0}, dtype="float32")
    assert time.rows == (
        ("2,048", "100 ms", "200 ms", "0.50", "0.50"),
        ("4,096", "400 ms", "100 ms", "4.00", "5.00"),
    )
    assert [label for _, label in time.legend] == ["dense", "MSA, low overlap"]
    assert [label for _, label in speed.legend] == ["MSA, low overlap", "arithmetic limit"]
    assert "break-even" in speed.chart


def test_a_limit_that_is_not_recorded_is_said():
    times = {"dense": {2048: 0.1}, "MSA, low overlap": {2048: 0.2}}
    _, speed = crossover_figures(times, None, dtype="float32")
    assert "not recorded" in speed.caption
    assert speed.rows == (("2,048", "100 ms", "200 ms", "0.50", "n/a"),)


def test_paired_effects_are_positive_where_head_is_worse(make_series):
    samples = [*_speed("x", "base", 1.0, 2.0, 3.0), *_speed("x", "head", 1.1, 2.0)]
    pairs = paired_effects(make_series(), samples)
    assert pairs == [("pair-0", pytest.approx(math.log(1.1))), ("pair-1", 0.0)]
    recall = make_series(unit="recall", direction="higher", method="binary")
    assert paired_effects(recall, samples)[0] == ("pair-0", pytest.approx(-0.1))


def test_a_distribution_counts_every_pair(make_series):
    pairs = [(f"pair-{i}", 0.01 * i) for i in range(8)]
    figure = distribution_figure(make_series(), pairs, name="x")
    root = ElementTree.fromstring(figure.chart)
    assert len(root.findall("path[@class='rug']")) == 8
    assert figure.rows[1] == ("pair-1", "+1.0%")
    assert figure.caption.startswith("8 pairs, median +3.5 %")
    assert "threshold" in figure.chart


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=40),
    st.sampled_from(["speed", "binary"]),
)
def test_a_distribution_can_be_drawn_of_any_values(values, method):
    series = SeriesVerdict("x", "s", "s", "lower", Verdict.ERROR, method=method, threshold=0.02)
    figure = distribution_figure(series, [("i", v) for v in values], name="x")
    assert "nan" not in figure.chart
    ElementTree.fromstring(figure.chart)


@settings(deadline=None)
@given(
    st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=20),
    st.sampled_from([0, 2, 10]),
)
def test_a_scale_keeps_order_and_place(values, base):
    scale = Scale(Axis("x", base=base), values, 0.0, 100.0)
    places = [scale(v) for v in sorted(values)]
    assert places == sorted(places)
    assert all(-1e-6 <= p <= 100 + 1e-6 for p in places)
    assert len(scale.ticks()) <= 20
    assert all(-1e-6 <= scale(t) <= 100 + 1e-6 for t in scale.ticks())


def test_a_chart_names_itself_to_a_screen_reader_and_escapes_its_texts():
    hostile = '<script>"&</script>'
    chart = svg.Chart(hostile, hostile, Axis(hostile), Axis(hostile),
                      (svg.Line(hostile, ((1.0, 2.0), (2.0, 3.0)), 0),))  # fmt: skip
    text = svg.draw(chart, name="one")
    root = ElementTree.fromstring(text)
    assert "<script" not in text
    assert root.get("role") == "img"
    named = [root.find(f"*[@id='{name}']") for name in root.get("aria-labelledby").split()]
    assert [node.text for node in named] == [hostile, hostile]


def test_lines_differ_without_colour():
    drawn = {shapes.swatch(slot).replace(f"s{slot}", "") for slot in range(len(shapes.MARKS))}
    assert len(drawn) == len(shapes.MARKS)


def _write(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_budget_figures_have_a_line_per_scorer_and_dense(tmp_path):
    rows = [
        {"scorer": s, "budget": k, "perplexity": 5.0, "perplexity_change": 0.1, "recall": r, "n": 9}
        for s, k, r in (("max", 2, 0.1), ("max", 4, 0.9), ("mean", 2, None))
    ]
    dense = {"perplexity": 4.4, "recall": 0.99}
    sweep = read_sweep(_write(tmp_path / "sweep.json", {"rows": rows, "dense": dense}))
    recall, perplexity = budget_figures(sweep)
    assert [label for _, label in recall.legend] == ["max", "mean"]
    assert recall.rows[0] == ("max", "2", "5", "+10.0%", "0.1", "", "9")
    assert recall.rows[2][4] == "n/a"
    assert recall.rows[3] == ("dense", "all", "4.4", "", "0.99", "", "")
    assert "dense 0.99" in recall.chart
    assert "dense 4.4" in perplexity.chart


def test_scorers_are_compared_where_they_differ_most(tmp_path):
    rows = [
        {"scorer": s, "budget": k, "recall": r, "recall_low": r / 2, "recall_high": 1.0}
        for k, recalls in ((2, (0.5, 0.4)), (4, (0.9, 0.2)), (8, (0.9, None)))
        for s, r in zip(("max", "mean"), recalls, strict=True)
        if r is not None
    ]
    document = {"rows": rows, "dense": {}}
    (figure,) = scorer_figure(read_sweep(_write(tmp_path / "sweep.json", document)))
    assert figure.title == "Scorers compared, k = 4"
    # As in the curves: each scorer has its own mark, whatever its place.
    assert [label for _, label in figure.legend] == ["mean", "max"]
    assert [row[4:6] for row in figure.rows] == [("0.2", "0.1 to 1"), ("0.9", "0.45 to 1")]
    root = ElementTree.fromstring(figure.chart)
    assert root.find("g/path").get("class") == "b s1"
    alone = {"rows": [row for row in rows if row["scorer"] == "max"], "dense": {}}
    assert list(scorer_figure(read_sweep(_write(tmp_path / "sweep.json", alone)))) == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "wanted JSON"),
        ([], "wanted an object of `sweep --json`"),
        ("[" * 100_000, "nested too deep"),
        ({"rows": []}, "dense: wanted an object"),
        ({"rows": {}, "dense": {}}, "rows: wanted list"),
        ({"rows": [1], "dense": {}}, r"rows\[0\]: wanted an object"),
        ({"rows": [{"scorer": ""}], "dense": {}}, r"rows\[0\]\.scorer"),
        ({"rows": [{"scorer": "a", "budget": True}], "dense": {}}, r"rows\[0\]\.budget"),
        ({"rows": [{"scorer": "a", "budget": 2, "n": "x"}], "dense": {}}, r"rows\[0\]\.n"),
        ({"rows": [{"scorer": "a", "budget": 2, "recall": "x"}], "dense": {}}, r"recall: wanted"),
        ('{"rows": [], "dense": {"recall": NaN}}', r"dense\.recall: wanted a finite number"),
    ],
)
def test_a_broken_sweep_is_refused_by_name(tmp_path, document, message):
    with pytest.raises(RunError, match=message):
        read_sweep(_write(tmp_path / "sweep.json", document))


def test_files_that_are_not_there_are_no_error(tmp_path):
    assert read_sweep(tmp_path / "sweep.json") is None
    assert read_cost(tmp_path / "cost.json") is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "wanted JSON"),
        ({}, "rows: wanted list"),
        ([], "wanted an object of `cost --json`"),
        ({"rows": [{"length": 0}]}, r"rows\[0\]\.length"),
        ({"rows": [{"length": 8, "ratio": "x"}]}, r"rows\[0\]\.ratio"),
        ({"rows": [], "roofline": 3}, "roofline: wanted an object"),
        ({"rows": [], "roofline": {}}, r"roofline\.work: wanted list"),
        ({"rows": [], "roofline": {"work": []}}, r"roofline\.peaks: wanted an object"),
        (
            {"rows": [], "roofline": {"work": [{"what": 3}], "peaks": {}}},
            r"roofline\.work\[0\]\.what: wanted str",
        ),
        (
            {"rows": [], "roofline": {"work": [], "peaks": {"flops_per_second": {"a": 0}}}},
            r"roofline\.peaks\.a: wanted a number above 0",
        ),
    ],
)
def test_a_broken_cost_table_is_refused_by_name(tmp_path, document, message):
    with pytest.raises(RunError, match=message):
        read_cost(_write(tmp_path / "cost.json", document))
