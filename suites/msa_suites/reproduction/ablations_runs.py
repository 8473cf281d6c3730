"""One training run of an ablation and its readings, kept on disk as soon as it is done."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from msa_harness.records import write_atomic
from msa_suites.models.attention import INDEX_ENTRY, Network
from msa_suites.models.text import Corpus
from msa_suites.models.train import Trainer, TrainingError
from msa_suites.models.training_data import Sequence
from msa_suites.models.training_plan import TrainingPlan, completed
from msa_suites.reproduction.ablations_plan import (
    BASE,
    DENSE,
    Experiment,
    Sizes,
    plan_of,
    readings,
)
from msa_suites.reproduction.ablations_reading import held_out, read
from msa_suites.reproduction.ablations_switches import PlainTopk, ValueHeads, loose_loss
from msa_suites.reproduction.setup import Setup

SCHEMA = "msa-bench/ablation-run/1"
FOLDER = "runs/ablations"
#: Channels of a value of the index branch.
_VALUE_DIM = 32
#: Significant digits of what is kept of every step.
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Start:
    """What all runs share.

    Attributes:
        model: the dense model; it stays as it is.
        about: what two measurements must share, weights included.
        sha256: of the weights.
        corpus: text.
    """

    model: Network
    about: dict[str, Any]
    sha256: str
    corpus: Corpus

    @property
    def theta(self) -> float:
        """Base of the model's rotation."""
        return float(self.model.config.rope_parameters["rope_theta"])


def dense_copy(model: Network) -> Network:
    """A copy to train, without an index branch if the model has one."""
    made = copy.deepcopy(model)
    for layer in made.model.layers:
        if hasattr(layer.self_attn, "indexer"):
            del layer.self_attn.indexer
    if hasattr(made.config, INDEX_ENTRY):
        delattr(made.config, INDEX_ENTRY)
    return made


def run(
    setup: Setup, start: Start, experiment: Experiment, sizes: Sizes, *, seed: int
) -> dict[str, Any]:
    """The run of one seed: taken over where the same one is on disk, else trained and read."""
    plan = plan_of(experiment, sizes, seed=seed, start=start.sha256, theta=start.theta)
    wanted = {
        "setup": start.about,
        "corpus": start.corpus.sha256,
        "training": asdict(plan),
        "experiment": asdict(experiment),
        "sizes": asdict(sizes),
        "readings": readings(experiment),
    }
    # As it will be read again: JSON has no tuples.
    wanted = json.loads(json.dumps(wanted))
    file = setup.out / FOLDER / f"{experiment.name}-{seed}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        told = {**kept["plan"], "training": completed(kept["plan"]["training"])}
        if kept["schema"] == SCHEMA and told == wanted:
            result: dict[str, Any] = kept["result"]
            return result
    except (OSError, ValueError, KeyError, TypeError):
        pass  # what is not whole is measured again
    began = time.monotonic()
    result = _train_and_read(setup, start, experiment, sizes, plan)
    result |= {"name": experiment.name, "seed": seed, "seconds": round(time.monotonic() - began, 1)}
    document = {"schema": SCHEMA, "plan": wanted, "result": result}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(document, allow_nan=False) + "\n")
    return result


def _train_and_read(
    setup: Setup, start: Start, experiment: Experiment, sizes: Sizes, plan: TrainingPlan
) -> dict[str, Any]:
    from msa import fast

    model = dense_copy(start.model)
    operations: Any = PlainTopk(fast) if experiment.plain_topk else fast
    heads = None
    if experiment.value_head and plan.index is not None:
        operations = heads = ValueHeads(
            model, operations, dim=_VALUE_DIM, block=plan.index.block, seed=plan.seed
        )
    trainer = Trainer(
        plan, corpus=start.corpus, device=setup.device, start=model, operations=operations
    )
    if trainer.index is not None and not trainer.index.alignment.detach:
        trainer.index.alignment.measure = loose_loss
    if heads is not None:
        heads.listen()
    steps: dict[str, list[float | None]] = {"grad_norm": [], "text_nll": [], "index_kl": []}
    diverged = None
    try:
        for progress in trainer.run():
            for name, values in steps.items():
                values.append(_short(getattr(progress, name)))
    except TrainingError:
        diverged = trainer.step
    model = trainer.finish()
    measured: dict[str, Any] = {}
    if diverged is None:
        texts = held_out(start.corpus, length=sizes.length, count=sizes.sequences, seed=setup.seed)
        measured = _read_all(model, experiment, sizes, plan, operations, texts)
        if not all(math.isfinite(one["text_nll"]) for one in measured.values()):
            measured, diverged = {}, trainer.step
    return {"steps": steps, "diverged": diverged, "measured": measured}


def _read_all(
    model: Network,
    experiment: Experiment,
    sizes: Sizes,
    plan: TrainingPlan,
    operations: Any,  # noqa: ANN401 - an implementation
    texts: list[Sequence],
) -> dict[str, Any]:
    from msa.retrofit import RetrofitSettings
    from msa_suites.models.index import settings_of

    assert plan.index is not None
    trained = {"scorer": "index", **settings_of(plan.index)}
    given: dict[str, Any] = {"operations": operations, "recorded": sizes.recorded}
    found = {
        name: read(model, texts, RetrofitSettings(**{**trained, **changes}), **given)
        for name, changes in readings(experiment).items()
    }
    if experiment.name == BASE:
        found[DENSE] = read(model, texts, None, **given)
    return found


def read_start(setup: Setup, start: Start, sizes: Sizes) -> dict[str, Any]:
    """The dense model before any training: read densely, and with selection without training."""
    from msa.retrofit import RetrofitSettings
    from msa_suites.models.index import settings_of
    from msa_suites.models.training_plan import IndexPlan

    model = dense_copy(start.model)
    texts = held_out(start.corpus, length=sizes.length, count=sizes.sequences, seed=setup.seed)
    trained = settings_of(IndexPlan(warmup=0))
    settings = {name: RetrofitSettings(scorer=name, **trained) for name in ("max", "oracle")}
    return {
        name: read(model, texts, one, operations="msa.fast", recorded=sizes.recorded)
        for name, one in {DENSE: None, **settings}.items()
    }


def _short(value: float | None) -> float | None:
    """A number as it is kept; none where it is none or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")
