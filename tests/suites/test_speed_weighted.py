"""The weighted mean of one's own shapes, and the rule of acceptance that is made of it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from msa_harness.gates import parse_gates
from msa_harness.judge import judge
from msa_harness.records import Sample
from msa_suites import cli
from msa_suites.case_files import load_cases
from msa_suites.commands import options
from msa_suites.speed.weighted import NAME, asked_of, weighted_samples

SHAPE = '"q_lens": [256], "Hq": 4, "Hkv": 2, "D": 32, "block": 32, "topk": 4'
TODAY = date(2026, 1, 1)


@pytest.fixture
def cases(tmp_path):
    def make(**weights):
        path = tmp_path / "shapes.jsonl"
        lines = [f'{{"name": "{n}", "weight": {w}, {SHAPE}}}' for n, w in weights.items()]
        path.write_text("\n".join(lines))
        return tuple(load_cases(path))

    return make


def pairs(slowdown, *, count=8, prefix="pair", seed=0):
    """Timed samples of shapes ``a`` and ``b``, and of a control, with half a percent of noise."""
    draw = random.Random(seed)
    samples = []
    for n in range(count):
        for name, factor in {**slowdown, "control": 1.0}.items():
            series = "speed/control/dense" if name == "control" else f"speed/attend/{name}"
            seconds = {"a": 0.1, "b": 0.4, "control": 0.2}[name]
            for side, times in (("base", 1.0), ("head", factor)):
                value = seconds * times * math.exp(draw.gauss(0, 0.005))
                item = f"{prefix}-{n:02d}"
                one = Sample("speed", series, side, "s", item, value, cluster=item, raw=(value,))
                samples.append(one)
    return samples


def verdicts(samples, shapes):
    table = parse_gates(options.gates_file("acceptance").read_text())
    every = [*samples, *weighted_samples(samples, shapes)]
    outcome = judge(every, table, TODAY, mode="paired", suites=["speed"], seed=0)
    return {one.name: one.verdict.value for one in outcome.series}, outcome


def test_the_mean_is_of_log_ratios_with_the_weights_of_the_shapes(cases):
    one = Sample("speed", "speed/attend/a", "base", "s", "pair-00", 0.1, raw=(0.1,))
    parts = {"a": (0.1, 0.2), "b": (0.4, 0.1)}
    samples = [
        replace(one, series=f"speed/attend/{name}", subject=side, value=value, raw=(value,))
        for name, both in parts.items()
        for side, value in zip(("base", "head"), both, strict=True)
    ]
    base, head = weighted_samples(samples, cases(a=3, b=1))
    assert (base.series, base.subject, head.subject) == (NAME, "base", "head")
    assert base.value == pytest.approx(0.1**0.75 * 0.4**0.25)
    assert head.value / base.value == pytest.approx(2**0.75 * 0.25**0.25)
    assert base.detail == "a 3, b 1"
    assert base.raw == head.raw == ()


def test_a_pair_counts_only_whole_and_only_once(cases):
    shapes = cases(a=1, b=1)
    samples = pairs({"a": 1.0, "b": 1.0}, count=2)
    assert len(weighted_samples(samples, shapes)) == 4
    assert weighted_samples([*samples, *weighted_samples(samples, shapes)], shapes) == []
    lost = [one for one in samples if (one.series, one.item) != ("speed/attend/b", "pair-01")]
    assert {one.item for one in weighted_samples(lost, shapes)} == {"pair-00"}


def test_thresholds_are_named_or_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert options.gates_file("acceptance").is_file()
    assert options.gates_file("gates.toml") == Path("gates.toml")
    where = ["--implementation", "torch", "--base-path", ".", "--head-path", "."]
    assert cli.main(["gate", *where, "--gates", "aceptance"]) == 2
    assert "aceptance" in capsys.readouterr().err


def test_one_shape_is_its_own_mean(cases):
    assert weighted_samples(pairs({"a": 1.0}), cases(a=1)) == []
    assert weighted_samples(pairs({"a": 1.0}), None) == []


def test_a_request_about_the_mean_is_one_about_every_shape(cases):
    shapes = cases(a=1, b=1)
    both = {"speed/attend/a": "more", "speed/attend/b": "more"}
    assert asked_of({NAME: "more"}, shapes) == both
    asked = asked_of({NAME: "more", "speed/attend/a": "confirm"}, shapes)
    assert asked == both | {"speed/attend/a": "confirm"}
    assert asked_of({"speed/other": "more"}, shapes) == {"speed/other": "more"}


@pytest.mark.parametrize(
    ("slowdown", "weights", "wanted"),
    [
        # Equal on every shape.
        ({"a": 1.0, "b": 1.0}, {"a": 1, "b": 1}, {}),
        # One shape is more than 5 % slower, whatever the mean.
        ({"a": 1.12, "b": 0.8}, {"a": 1, "b": 9}, {"speed/attend/a"}),
        # No shape is, and the mean is slower: where the common shape is.
        ({"a": 1.03, "b": 0.99}, {"a": 9, "b": 1}, {NAME}),
        ({"a": 1.03, "b": 0.97}, {"a": 1, "b": 9}, set()),
    ],
)
def test_the_rule_of_acceptance(cases, slowdown, weights, wanted):
    shapes = cases(**weights)
    first = pairs(slowdown)
    found, outcome = verdicts(first, shapes)
    asked = {one.name for one in outcome.series if one.more == "confirm"}
    assert asked == set(wanted)
    if asked:
        found, outcome = verdicts([*first, *pairs(slowdown, prefix="confirm", seed=1)], shapes)
    assert {name for name, verdict in found.items() if verdict == "REGRESSION"} == set(wanted)
    assert outcome.exit_code == (1 if wanted else 0)
