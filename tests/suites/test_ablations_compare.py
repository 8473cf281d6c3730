"""Differences over seeds: paired, and called one only where all agree."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ablated import (
    NAMED,
    plan,
)

from msa_suites.reproduction.ablations_compare import summary, value_of, verdict
from msa_suites.reproduction.ablations_plan import (
    BASE,
    COMPARISONS,
    EXPERIMENTS,
    OWN,
    readings,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def one(name, seed, nll, norms=(1.0, 1.0, 1.0), **more):
    measured = {OWN: {"text_nll": nll, "answers": {"value": 0.5, "n": 10}, "mass": 0.5}}
    return {"name": name, "seed": seed, "diverged": None, "measured": measured,
            "steps": {"grad_norm": list(norms)}} | more  # fmt: skip


def test_a_difference_is_one_only_where_all_seeds_agree():
    assert verdict([0.1, 0.2, 0.1]) == "differs"
    assert verdict([-0.1, -0.2, -0.1]) == "differs"
    assert verdict([0.1, -0.1, 0.2]) == "no difference"
    assert verdict([0.1, 0.0, 0.2]) == "no difference"
    assert verdict([0.1, 0.1]) == "too few seeds"
    assert verdict([0.1, None, 0.1]) == "diverged"


def test_differences_are_paired_by_seed():
    base = [one(BASE, seed, 1.0 + seed) for seed in range(3)]
    runs = {experiment.name: base for experiment in EXPERIMENTS}
    runs["no_warmup"] = [one("no_warmup", seed, 1.1 + seed) for seed in range(3)]
    spiking = [one("no_detach", seed, 1.0 + seed, norms=(1.0, 11.0, None)) for seed in range(2)]
    runs["no_detach"] = [*spiking, one("no_detach", 2, 0.0, diverged=1, measured={})]
    found = summary(runs)
    rows = {row["name"]: row for row in found["comparisons"]}
    # The ranges of the values overlap; the pairs do not.
    late = rows["no_warmup"]["differences"]["text_nll"]
    assert late["values"] == pytest.approx([0.1] * 3)
    assert late["verdict"] == "differs"
    assert rows["no_warmup"]["differences"]["answers"]["verdict"] == "no difference"
    assert rows["no_detach"]["differences"]["text_nll"]["verdict"] == "diverged"
    assert rows["no_detach"]["answers"]["n"] == 10
    seeds = next(one for one in found["gradients"] if one["name"] == "no_detach")["seeds"]
    assert (seeds[0]["largest"], seeds[0]["not_finite"]) == (11.0, 1)
    assert seeds[0]["spikes"] == pytest.approx(1 / 3)
    assert value_of(base[0], "k_2", "text_nll") is None
    json.dumps(found, allow_nan=False)


def test_every_comparison_has_two_readings_of_runs_that_there_are():
    for compared in COMPARISONS:
        own = {*readings(NAMED[compared.run]), *(("dense",) if compared.run == BASE else ())}
        assert compared.reading in own
        assert compared.base in readings(NAMED[compared.against])
    assert len({experiment.name for experiment in EXPERIMENTS}) == len(EXPERIMENTS)
    # Where one thing is switched, the rest of the plan is the base's.
    base = plan(BASE)
    for name in ("no_local", "value_head"):
        assert plan(name) == base
    assert replace(plan("no_warmup").index, warmup=base.index.warmup) == base.index
