"""Full, PT and CPT at equal tokens: what a trained index branch is worth beside dense attention.

Three models have read the same tokens in all: ``full`` is dense to the end, ``pt`` trained its
index branch from the start, ``cpt`` went on from the dense model. The embedded model is where
``full`` and ``cpt`` part; ``cpt`` ships with the suite, the other two are trained when they are
wanted, into ``models/`` beside the data, with checkpoints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa_suites.models.training_plan import TrainingPlan, completed, plan_route
from msa_suites.reproduction.estimates import mean, proportion
from msa_suites.reproduction.selecting import compare_scorers
from msa_suites.reproduction.setup import CannotRun, Setup

if TYPE_CHECKING:
    from msa_suites.models.routes import Start

#: Route of each model that is compared.
_ROUTES = {"full": "dense", "pt": "pt", "cpt": "cpt"}
#: What the tables compare: model, attention, and settings that are not the model's own.
_FREE = {"scorer": "max", "topk": 4, "block": 32, "sink_blocks": 1}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    model: str
    attention: str
    settings: dict[str, Any]


_COLUMNS = (
    _Column("full", "full", "dense", {}),
    _Column("free", "full", "msa", _FREE),
    _Column("pt", "pt", "msa", {}),
    _Column("cpt", "cpt", "msa", {}),
)


def measure(setup: Setup) -> dict[str, Any]:
    """Tasks of all columns, differences from ``full``, and what the index branches choose."""
    if setup.model:
        raise CannotRun("The routes are of the embedded model, and another one was named.")
    folders = {name: _model(setup, name) for name in _ROUTES}
    return {
        "models": [_told(name, folder) for name, folder in folders.items()],
        "tasks": _tasks(setup, folders),
        "choices": [
            row
            for name in ("pt", "cpt")
            for row in compare_scorers(setup, name, folders[name], against=folders["full"])
        ],
    }


def _plan(setup: Setup, name: str) -> TrainingPlan:
    route, start = _ROUTES[name], _start(name, device="cpu")
    if start is None:
        plan = plan_route(route, seed=setup.seed)
    else:
        plan = plan_route(route, start=start.sha256, plain_start=start.plain, seed=setup.seed)
    if not setup.quick:
        return plan
    index = plan.index and replace(plan.index, warmup=1)
    return replace(plan, curriculum=((256, 1, 2),), index=index)


def _start(name: str, *, device: str) -> Start | None:
    """What a model goes on from; None for a start of its own."""
    from msa_suites.models.routes import load_start
    from msa_suites.models.shipped import EMBEDDED

    route = _ROUTES[name]
    return load_start(route, None if route == "pt" else EMBEDDED, device=device)


def _model(setup: Setup, name: str) -> Path:
    """The directory of a model, which is trained unless it is there."""
    from msa_suites.models.routes import checkpoint_of, train_route
    from msa_suites.models.shipped import EMBEDDED_CPT
    from msa_suites.models.text import load_corpus
    from msa_suites.models.train import Progress, Trainer

    plan, corpus = _plan(setup, name), load_corpus()
    wanted = (json.loads(plan.as_json()), corpus.sha256)
    out = setup.out / "models" / name
    for folder in (EMBEDDED_CPT, out):
        if _trained(folder / "training.json") == wanted:
            return folder
    if (out / "training.json").exists():
        raise ValueError(
            f"{out}: wanted a model of plan {plan.as_json()} and text {corpus.sha256[:12]}, got "
            "one of another"
        )

    def on_step(_: Trainer, step: Progress) -> None:
        if step.step % 50 == 0:
            setup.say(f"training {name}: step {step.step} of {step.steps}, {step.phase}")

    lengths = (512,) if setup.quick else (512, 2048, 8192)
    train_route(
        plan,
        out,
        corpus=corpus,
        device=setup.device,
        start=_start(name, device=setup.device),
        resume=checkpoint_of(out).exists(),
        command=f"msa-bench train --route {_ROUTES[name]} --seed {setup.seed} --out DIR",
        on_step=on_step,
        contexts=1 if setup.quick else 16,
        lengths=lengths,
    )
    return out


def _trained(log: Path) -> tuple[dict[str, Any], str] | None:
    """Plan and text of a model by its training log; None where that says neither."""
    try:
        record = json.loads(log.read_text())
        return completed(record["plan"]), str(record["text_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _told(name: str, folder: Path) -> dict[str, Any]:
    """What a model's training log says of it."""
    record = json.loads((folder / "training.json").read_text())
    plan = completed(record["plan"])
    return {
        "name": name,
        "route": plan["route"],
        "steps": sum(steps for *_, steps in plan["curriculum"]),
        "tokens": record["tokens"],
        "text_sha256": record["text_sha256"],
        "index": plan["index"],
        "log": [
            {key: line.get(key) for key in ("step", "text_nll", "answer_accuracy", "index_kl")}
            for line in record["log"]
        ],
    }


def _tasks(setup: Setup, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """Every metric of every task in every column, and how far it is from ``full``."""
    from msa_suites.quality.evaluate import evaluate
    from msa_suites.quality.items import TASKS

    tasks = TASKS[:2] if setup.quick else TASKS
    found: dict[str, dict[tuple[str, str], list[dict[str, Any]]]] = {}
    for column in _COLUMNS:
        setup.say(f"tasks: {column.name}")
        rows = evaluate(
            str(folders[column.model]),
            settings=column.settings,
            tasks=tasks,
            profile="quick" if setup.quick else "standard",
            limit=2 if setup.quick else None,
            device=setup.device,
            attentions=(column.attention,),
        )
        for row in rows:
            key = (row["task"], row["metric"])
            found.setdefault(column.name, {}).setdefault(key, []).append(row)
    return [_task(setup, key, found) for key in found["full"]]


def _task(
    setup: Setup,
    key: tuple[str, str],
    found: dict[str, dict[tuple[str, str], list[dict[str, Any]]]],
) -> dict[str, Any]:
    full = found["full"][key]
    clusters = [row["cluster"] for row in full]
    recalls = all(row["value"] in (0.0, 1.0) for row in full)
    row: dict[str, Any] = {"task": key[0], "metric": key[1], "recall": recalls}
    for column in _COLUMNS:
        values = [one["value"] for one in found[column.name][key]]
        if [one["item"] for one in found[column.name][key]] != [one["item"] for one in full]:
            raise ValueError(f"{key[0]}: wanted the same items in {column.name}, got others")
        row[column.name] = (
            proportion([value > 0 for value in values], clusters, seed=setup.seed)
            if recalls
            else mean(values, clusters, seed=setup.seed, least=0.0)  # nats
        )
        if column.name != "full":
            more = [value - one["value"] for value, one in zip(values, full, strict=True)]
            row[f"{column.name}_difference"] = mean(more, clusters, seed=setup.seed)
    return row
