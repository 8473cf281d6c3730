"""The models of the three routes: trained once, taken up again, never taken for others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msa_suites.models import routes as training
from msa_suites.models.shipped import EMBEDDED_CPT
from msa_suites.models.text import Corpus
from msa_suites.reproduction import routes
from msa_suites.reproduction.setup import CannotRun, Setup

from .trained import CORPUS

NOTHING = np.zeros(0, np.uint8)


@pytest.fixture
def setup(tmp_path):
    return Setup(out=tmp_path / "out", quick=True)


@pytest.fixture
def short_text(monkeypatch):
    monkeypatch.setattr("msa_suites.models.text.load_corpus", lambda: CORPUS)


def refuse(*_, **__):
    raise AssertionError("wanted the model that is there, got training")


@pytest.mark.usefixtures("short_text")
def test_a_model_is_trained_once(setup, monkeypatch):
    folder = routes._model(setup, "full")
    assert folder == setup.out / "models" / "full"
    monkeypatch.setattr(training, "train_route", refuse)
    assert routes._model(setup, "full") == folder


@pytest.mark.usefixtures("short_text")
def test_an_interrupted_training_goes_on(setup, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 1)

    def stop(*_, **__):
        raise KeyboardInterrupt

    plain = training.ship
    monkeypatch.setattr(training, "ship", stop)
    with pytest.raises(KeyboardInterrupt):
        routes._model(setup, "full")
    left = training.checkpoint_of(setup.out / "models" / "full")
    assert left.exists()
    monkeypatch.setattr(training, "ship", plain)
    steps = []
    monkeypatch.setattr(
        "msa_suites.models.train.Trainer.batch", lambda *_: steps.append(1)
    )  # nothing is left to read
    routes._model(setup, "full")
    assert not steps
    assert not left.exists()


@pytest.mark.usefixtures("short_text")
def test_a_model_of_another_plan_is_no_stand_in(setup):
    folder = routes._model(setup, "full")
    record = json.loads((folder / "training.json").read_text())
    other_plan = {**record, "plan": {**record["plan"], "seed": 9}}
    for other in (other_plan, {**record, "text_sha256": "1" * 64}, {"plan": 1}, []):
        (folder / "training.json").write_text(json.dumps(other))
        with pytest.raises(ValueError, match=r"models/full: wanted a model of plan .*got one of"):
            routes._model(setup, "full")


def test_the_shipped_model_is_that_of_the_plan(tmp_path, monkeypatch):
    """Else the section would train it again, half an hour of it, without need."""
    monkeypatch.setattr(training, "train_route", refuse)
    shipped = json.loads((EMBEDDED_CPT / "training.json").read_text())
    there = Corpus(NOTHING, NOTHING, shipped["text_sha256"])  # that of the Python it was trained on
    monkeypatch.setattr("msa_suites.models.text.load_corpus", lambda: there)
    whole = Setup(out=tmp_path / "out")
    folder = routes._model(whole, "cpt")
    assert folder.name == "embedded_cpt"
    assert routes._told("cpt", folder)["tokens"] == routes._plan(whole, "full").tokens


def test_another_model_has_no_routes(tmp_path):
    with pytest.raises(CannotRun, match="routes are of the embedded model"):
        routes.measure(Setup(out=tmp_path, model="elsewhere"))


@pytest.mark.slow
def test_the_whole_section(setup):
    found = routes.measure(setup)
    assert [one["name"] for one in found["models"]] == ["full", "pt", "cpt"]
    assert {one["metric"] for one in found["tasks"]} == {"recall", "nll"}
    for one in found["tasks"]:
        assert one["full"]["n"] == one["cpt_difference"]["n"] == 2
    keys = {(one["model"], one["scorer"], one["topk"]) for one in found["choices"]}
    ways = ("index", "free", "free_sink", "oracle", "teacher")
    assert keys == {(model, way, 4) for model in ("pt", "cpt") for way in ways}
    for one in found["choices"]:
        assert one["mass_difference"]["value"] == 0 or one["scorer"] != "free"
        assert one["scorer"] != "oracle" or one["blocks"]["value"] == 1
