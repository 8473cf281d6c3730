"""What the document says of the three routes, from data."""

from __future__ import annotations

import pytest

from msa_reports.reproduction.layout import render
from msa_reports.reproduction.routes import render as section


def estimate(value, spread=0.001, n=24):
    return {"value": value, "low": value - spread, "high": value + spread, "n": n}


def choice(model, scorer, topk, mass, difference):
    return {
        "model": model,
        "scorer": scorer,
        "topk": topk,
        "mass": estimate(mass),
        "blocks": estimate(0.7),
        "mass_difference": estimate(difference),
        "nats_from_full": estimate(-0.01),
        "nats_from_own": estimate(0.005),
    }


def model(name, route, tokens, index=None):
    log = [
        {
            "step": step,
            "text_nll": 3 / step,
            "answer_accuracy": 0.9,
            "index_kl": kl if index else None,
        }
        for step, kl in ((50, 0.3), (100, 0.1))
    ]
    return {"name": name, "route": route, "steps": 100, "tokens": tokens, "index": index,
            "log": log}  # fmt: skip


INDEX = {"topk": 4, "block": 32, "warmup": 200}


def task(name, full, pt, cpt, *, recall=True):
    row = {"task": name, "metric": "recall" if recall else "nll", "recall": recall}
    for column, value in {"full": full, "free": full, "pt": pt, "cpt": cpt}.items():
        row[column] = estimate(value)
        row[f"{column}_difference"] = estimate(value - full)
    return row


def data(difference=0.0):
    return {
        "models": [model("full", "dense", 1_925_120), model("pt", "pt", 9_912_320, INDEX),
                   model("cpt", "cpt", 1_925_120, INDEX)],
        "tasks": [task("msa_facts", 1.0, 0.5, 0.8), task("msa_niah_single", 0.8, 0.7, 1.0),
                  task("msa_tail_nll", 1.25, 1.5, 1.125, recall=False)],
        "choices": [choice(one, scorer, k, 0.75 if scorer == "index" else 0.76,
                           difference if scorer == "index" else 0.0)
                    for one in ("pt", "cpt") for k in (4, 16)
                    for scorer in ("index", "free", "free_sink", "oracle", "teacher")],
    }  # fmt: skip


def text(**changes):
    return render(section(data() | changes), folder="r", command="c")


def test_the_routes_stand_beside_the_paper():
    shown = text()
    assert "79.8 / 84.2 / 77.2 (8K), 75.0 / 77.5 / 75.7 (32K)" in shown
    assert "90% / 60% / 90% (mean of the tasks)" in shown  # recalls alone
    assert "full 1.93 M, pt 9.91 M, cpt 1.93 M" in shown
    assert "its first 200 steps are warm-up" in shown
    assert "a query of `pt` keeps 4 blocks of 32 tokens" in shown
    assert "trained 75% (74.9% to 75.1%), training-free 76% (75.9% to 76.1%)" in shown
    assert all(f"](r/routes-{name}.svg)" in shown for name in ("text", "index", "mass"))


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.002, "keeps more of the attention than"),
        (-0.002, "keeps less of the attention than"),
        (0.0005, "is not told apart, by the attention it keeps, from"),
    ],
)
def test_what_follows_is_what_was_measured(difference, words):
    assert words in section(data(difference)).meaning


def test_several_k_in_training_are_told():
    cpt = model("cpt", "cpt", 1, {**INDEX, "also_topk": [8, 16]})
    assert "a query of `cpt` keeps 4 and in turn 8 and in turn 16 blocks" in text(models=[cpt])
    for wrong in (16, ["16"]):
        with pytest.raises(ValueError, match="also_topk: wanted a list of ints"):
            text(models=[model("cpt", "cpt", 1, {**INDEX, "also_topk": wrong})])


def test_what_was_not_measured_is_said():
    assert "not measured (mean of the tasks)" in text(tasks=[])
    assert section(data() | {"choices": []}).meaning == "Not measured."


def test_a_dense_model_has_no_loss_of_an_index_branch():
    plots = {plot.name: plot.chart for plot in section(data()).plots}
    assert [line.label for line in plots["routes-index"].lines] == ["pt", "cpt"]
    assert [line.label for line in plots["routes-text"].lines] == ["full", "pt", "cpt"]
    assert [line.points[0][0] for line in plots["routes-mass"].lines] == [4.0] * 5


def test_broken_data_is_named():
    with pytest.raises(ValueError, match="mass"):
        text(choices=[choice("cpt", "index", 4, 0.7, 0.0) | {"mass": None}])
    with pytest.raises(ValueError, match="tokens"):
        text(models=[model("full", "dense", None)])
