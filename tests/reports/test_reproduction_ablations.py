from __future__ import annotations

import copy
import json

import pytest

from msa_reports.reproduction import ablations, relatives
from msa_reports.reproduction.layout import render
from msa_reports.reproduction.standalone import standalone


def spread(*values, **more):
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else None
    return {"values": list(values), "mean": mean, "low": min(known, default=None),
            "high": max(known, default=None)} | more  # fmt: skip


def reading(nll=1.0, answers=0.9):
    return {
        "run": "base", "reading": "index", "text_nll": spread(nll, nll + 0.1, nll + 0.2),
        "answers": spread(*[answers] * 3) | {"interval": [answers - 0.05, answers + 0.05],
                                             "n": 300},
        "mass": spread(0.7, 0.7, 0.8), "blocks": spread(0.5, 0.5, 0.6),
    }  # fmt: skip


def row(name, group, less, says):
    differences = {
        "text_nll": spread(*less, verdict=says),
        "answers": spread(-0.01, 0.0, 0.01, verdict="no difference"),
    }
    return reading() | {"name": name, "group": group, "against": "base", "base": "index",
                        "differences": differences}  # fmt: skip


def gradients(name, norms, *, diverged=None):
    seed = {"seed": 0, "median": 1.0, "largest": max(filter(None, norms)), "spikes": 0.25,
            "not_finite": norms.count(None), "diverged": diverged}  # fmt: skip
    return {"name": name, "seeds": [seed], "first": norms}


def gone(name):
    """All of its runs diverged."""
    nothing = spread(None, None, None, verdict="diverged")
    return {"run": name, "reading": "index", "name": name, "group": "training", "against": "base",
            "base": "index", "differences": {"text_nll": nothing, "answers": nothing}}  # fmt: skip


RESULT = {
    "sizes": {"curriculum": [[1024, 2, 130]], "warmup": 45, "rise": 10, "seeds": 3,
              "length": 2048, "sequences": 16, "recorded": 4},
    "index": {"topk": 4, "block": 32, "index_dim": 64, "coefficient": 1.0},
    "seeds": [0, 1, 2],
    "start": {"dense": {"text_nll": 1.1, "answers": {"value": 0.9, "low": 0.8, "high": 0.95,
                                                     "n": 300}}},
    "base": reading(),
    "frozen": reading(),
    "comparisons": [
        row("no_warmup", "training", (0.03, 0.02, 0.01), "differs"),
        row("sink_window", "training", (0.03, -0.02, 0.01), "no difference"),
        gone("no_detach_100"),
        row("block_16", "reading", (-0.03, -0.02, -0.01), "differs"),
        row("dim_16", "index dim", (0.03, 0.02, 0.01), "differs"),
    ],
    "gradients": [gradients("base", [1.0, 2.0, 1.0]),
                  gradients("no_detach_100", [50.0, 900.0, None, 0.0], diverged=4)],
}  # fmt: skip


def text_of(result):
    return render(ablations.render(result), folder="f", command="c")


def test_what_differs_is_said_and_nothing_else():
    text = text_of(RESULT)
    meaning = text.partition("**For a builder.**")[2]
    assert "text, nats per byte: no warm-up (+0.0200 (+0.0100 to +0.0300))" in meaning
    assert "answers right: nothing" in meaning
    assert "sink" not in meaning
    assert "blocks of 16" not in meaning  # read otherwise, not trained otherwise
    assert "+0.0067 (-0.0200 to +0.0300): no difference seen at this size" in text
    assert "0.900 (0.850 to 0.950, n 300)" in text


def test_published_figures_stand_beside_ours():
    text = text_of(RESULT)
    for published in ("66.1 / 65.3 / 64.6", "1.176 / 1.176 / 1.176", "65.8 / 61.5"):
        assert published in text
    line = next(one for one in text.splitlines() if one.startswith("| block size 32 / 64 / 128"))
    # What was not measured has no number.
    assert line.count("n/a") == 1
    assert "| an index value head | tried and dropped | the paper, no figure | not measured" in text


def test_a_run_that_diverged_has_no_number_and_says_so():
    text = text_of(RESULT)
    assert "no detach, lambda 100: 25% of the steps, 1 of 1 diverged" in text
    assert "| no detach, lambda 100 | n/a | n/a: diverged |" in text
    assert "| at step 4 |" in text


def test_the_plots_leave_out_what_is_not_there():
    section = ablations.render(RESULT)
    dots, norms = (plot.chart for plot in section.plots)  # none is far out
    assert [len(line.points) for line in dots.lines] == [3, 3, 0]
    assert [dots.y.show(tick) for tick in dots.y.ticks] == [
        "no warm-up", "sink+win.", "no det., 100"
    ]  # fmt: skip
    assert {y for _, y in dots.lines[0].points} == {3.0}
    assert [line.label for line in norms.lines] == ["base", "no det., 100"]
    for plot in section.plots:
        drawn = standalone(plot.chart, name=plot.name)
        assert "nan" not in drawn.lower().replace("no detach", "")


def test_what_is_near_the_base_has_a_plot_beside_what_is_far_out():
    result = copy.deepcopy(RESULT)
    result["comparisons"][2] = row("no_detach_100", "training", (0.9, 0.8, 1.0), "differs")
    every, near, _ = (plot.chart for plot in ablations.render(result).plots)
    assert [line.label for line in every.lines] == ["no warm-up", "sink+win.", "no det., 100"]
    assert [line.label for line in near.lines] == ["no warm-up", "sink+win."]
    assert "nats per byte: no warm-up" in text_of(result)


def test_one_seed_claims_nothing():
    result = copy.deepcopy(RESULT) | {"seeds": [0]}
    for compared in result["comparisons"]:
        for found in compared["differences"].values():
            found["verdict"] = "too few seeds"
    assert "With 1 seed nothing can be said of differences." in text_of(result)


def test_names_from_the_data_stay_text(hostile):
    result = copy.deepcopy(RESULT)
    result["comparisons"][0]["name"] = hostile
    result["gradients"][0]["name"] = hostile
    result["start"] = {hostile: RESULT["start"]["dense"]}
    text = text_of(result)
    for bad in ("<script", "<img", "@someone", "GH-3", "\x1b", "**b**", "](https"):
        assert bad not in text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("base", "text_nll"), 1.0, "text_nll: wanted an object"),
        (("base", "text_nll", "values"), [1.0, "x"], r"text_nll.values\[1\]: wanted a finite"),
        (("comparisons", 0, "differences"), [], "differences: wanted an object"),
        (("comparisons", 0, "answers", "interval"), [0.1, None], "answers.interval: wanted two"),
        (("gradients", 0, "first"), [1.0, float("inf")], r"first\[1\]: wanted a finite number"),
        (("sizes", "curriculum"), [[1024, 2]], "sizes.curriculum: wanted lists of three"),
    ],
)
def test_broken_data_are_named(path, value, message):
    result = copy.deepcopy(RESULT)
    place = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        ablations.render(result)


def relative(name, tokens, recall, spread_=0.1):
    bounds = {"low": max(0.0, recall - spread_), "high": min(1.0, recall + spread_), "n": 96}
    change = {"value": 0.05, "low": 0.01, "high": 0.09, "n": 8}
    return {"name": name, "tokens": tokens, "recall": {"value": recall} | bounds,
            "perplexity": 3.3, "change": change}  # fmt: skip


def rule(name):
    return {"name": name, "pieces": f"pieces of {name}", "source": "arXiv 0000.00000",
            "faithful": f"what {name} does", "stand_in": f"what {name} leaves out"}  # fmt: skip


RELATIVES = {
    "length": 2048,
    "contexts": 8,
    "dense": relative("dense", 0, 1.0),
    "rows": [relative("msa", 128, 0.95), relative("msa", 256, 0.97), relative("moba", 128, 0.2),
             relative("quest", 128, 0.9)],
    "rules": [rule("msa"), rule("moba"), rule("quest")],
}  # fmt: skip


def test_relatives_stand_in_order_with_what_they_leave_out():
    section = relatives.render(RELATIVES)
    text = render(section, folder="f", command="c")
    assert "msa 0.95, quest 0.90, moba 0.20; below msa beyond the intervals: moba. W" in text
    for name in ("msa", "moba", "quest"):
        assert f"what {name} does" in text
        assert f"what {name} leaves out" in text
    assert "| quest: recall of twelve facts | not listed |" in text
    assert "| moba: recall of twelve facts | listed, no figure |" in text
    assert "+5.0% (+1.0% to +9.0%, n 8)" in text or "&#43;5.0% (+1.0% to +9.0%, n 8)" in text
    (plot,) = section.plots
    assert plot.chart.lines[0].points == ((128.0, 0.95), (256.0, 0.97))
    assert "<svg" in standalone(plot.chart, name=plot.name)


def test_relatives_of_an_earlier_version_have_no_interval_on_text():
    old = [{**row, "change": 0.05} for row in RELATIVES["rows"]]
    text = render(relatives.render({**RELATIVES, "rows": old}), folder="f", command="c")
    assert "+5.0% |" in text.replace("&#43;", "+")


def test_relatives_of_strangers_stay_text(hostile):
    told = json.loads(json.dumps(RELATIVES).replace('"moba"', json.dumps(hostile)))
    text = render(relatives.render(told), folder="f", command="c")
    assert "<script" not in text
    assert "@someone" not in text
