"""The ablations: what each trains and what each reads, against what it is compared.

Every training run is a short conversion of the same dense model: some steps of warm-up with full
attention, then sparse ones. What needs no training of its own is read from the runs of the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from msa_suites.models.architecture import ModelShape
from msa_suites.models.training_plan import Curriculum, IndexPlan, TrainingPlan, plan_route

#: The run that the others are compared with, and the one with a frozen model.
BASE, FROZEN = "base", "dim_64"
#: Name of the reading with the settings that were trained.
OWN = "index"
INDEX_DIMS = (16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long each run trains, and what is read afterwards.

    Attributes:
        curriculum: of a run.
        warmup: first steps with full attention.
        rise: first steps in which the rates rise.
        seeds: runs of each experiment.
        length: bytes of a held-out sequence.
        sequences: how many are read.
        recorded: of them, how many with the true attention mass.
    """

    curriculum: Curriculum = ((1024, 2, 130),)
    warmup: int = 45
    rise: int = 10
    seeds: int = 3
    length: int = 2048
    sequences: int = 16
    recorded: int = 4


#: Enough for every branch of the code, and for no finding.
QUICK = Sizes(
    curriculum=((192, 1, 3),), warmup=1, rise=1, seeds=1, length=320, sequences=2, recorded=1
)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A training run.

    Attributes:
        name: of the run.
        index: what its :class:`IndexPlan` has otherwise than the base.
        frozen: whether only the index branch learns, in warm-up to the end.
        plain_topk: whether no block is forced.
        value_head: whether the index branch has values.
    """

    name: str
    index: Mapping[str, Any] = field(default_factory=dict)
    frozen: bool = False
    plain_topk: bool = False
    value_head: bool = False


EXPERIMENTS = (
    Experiment(BASE),
    Experiment("no_warmup", {"warmup": 0}),
    Experiment("no_detach", {"detach": False}),
    Experiment("no_detach_10", {"detach": False, "coefficient": 10.0}),
    Experiment("no_detach_100", {"detach": False, "coefficient": 100.0}),
    Experiment("lambda_100", {"coefficient": 100.0}),
    Experiment("no_local", plain_topk=True),
    Experiment("sink_window", {"sink_blocks": 1, "local_blocks": 2}),
    Experiment("value_head", value_head=True),
    # A head's first half is rotated, as in the base.
    *(
        Experiment(f"dim_{dim}", {"index_dim": dim, "rotary_dim": dim // 2}, frozen=True)
        for dim in INDEX_DIMS
    ),
)

#: Other settings in which the models of the base are read.
BASE_READINGS: Mapping[str, Mapping[str, Any]] = {
    **{f"k_{k}": {"topk": k} for k in (2, 8, 16)},
    **{f"max_k_{k}": {"topk": k, "scorer": "max"} for k in (2, 8, 16)},
    # As many tokens in smaller and in larger blocks.
    "block_16": {"block": 16, "topk": 8},
    "block_64": {"block": 64, "topk": 2},
    "mean_pooling": {"scorer": "index_mean"},
}
#: In which every run is read that asks its index branch for nothing else.
SCORER_READINGS: Mapping[str, Mapping[str, Any]] = {
    "max": {"scorer": "max"},
    "oracle": {"scorer": "oracle"},
}
DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two readings, seed by seed: ``run`` read as ``reading`` less ``against`` read as ``base``."""

    name: str
    group: str
    run: str
    reading: str
    against: str = BASE
    base: str = OWN


COMPARISONS = (
    *(
        Comparison(one.name, "training", one.name, OWN)
        for one in EXPERIMENTS
        if one.name != BASE and not one.frozen
    ),
    *(Comparison(name, "reading", BASE, name) for name in ("max", "oracle", DENSE)),
    *(Comparison(name, "reading", BASE, name) for name in BASE_READINGS),
    *(
        Comparison(f"dim_{dim}", "index dim", f"dim_{dim}", OWN, FROZEN)
        for dim in INDEX_DIMS
        if f"dim_{dim}" != FROZEN
    ),
)


def readings(experiment: Experiment) -> dict[str, Mapping[str, Any]]:
    """The settings in which a run's model is read, as changes of those it was trained in."""
    found: dict[str, Mapping[str, Any]] = {OWN: {}}
    if experiment.frozen or experiment.value_head:
        # The dense model's own numbers are the base's start; a value head needs the index branch.
        return found
    return {**found, **SCORER_READINGS, **(BASE_READINGS if experiment.name == BASE else {})}


def plan_of(
    experiment: Experiment, sizes: Sizes, *, seed: int, start: str, theta: float
) -> TrainingPlan:
    """The plan of a run.

    Args:
        experiment: which.
        sizes: how long.
        seed: of its weights and of what it reads.
        start: SHA-256 of the dense model.
        theta: base of that model's rotation.
    """
    plan = plan_route("cpt", seed=seed, start=start)
    plan = replace(
        plan,
        shape=ModelShape(rope_theta=theta),
        curriculum=sizes.curriculum,
        warmup_steps=sizes.rise,
    )
    warmup = plan.steps if experiment.frozen else sizes.warmup
    index = replace(IndexPlan(warmup=warmup), **experiment.index)
    if experiment.frozen:
        plan = replace(plan, muon_lr=0.0, adam_lr=0.0)
    return replace(plan, index=index)
