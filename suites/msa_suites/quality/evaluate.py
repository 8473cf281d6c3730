"""One subject's quality, item by item: runs inside the worker process of that subject.

Takes and returns plain data, because it is called across a process boundary. Everything of ``msa``
is reached through its public functions, and only when called: there it is the subject's ``msa``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from msa_suites.models.attention import Network, own_settings, settings_for
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.items import TASKS, check_name, load_items
from msa_suites.quality.quiet import quiet

#: Called with what has just been finished: task and attention.
OnTask = Callable[[str, str], None]


def check_contexts(tasks: Sequence[str], *, profile: str, budget: int) -> None:
    """Refuse items whose context MSA would attend densely.

    Raises:
        QualityInvalid: an item's context does not exceed ``budget`` = topk * block tokens.
    """
    for task in tasks:
        lengths = [item.length for item in load_items(task, profile=profile)]
        if min(lengths) <= budget:
            raise QualityInvalid(
                f"context: wanted more than topk * block = {budget} tokens in every item of "
                f"{task}, got {min(lengths)}: MSA equals dense attention there"
            )


def evaluate(
    model_dir: str = "",
    *,
    settings: Mapping[str, Any] | None = None,
    tasks: Sequence[str] = TASKS,
    profile: str = "quick",
    device: str = "cpu",
    dtype: str = "float32",
    limit: int | None = None,
    attentions: Sequence[str] = ("dense", "msa"),
    on_task: OnTask | None = None,
) -> list[dict[str, Any]]:
    """Every item's metrics through lm-eval, on one weight load.

    Args:
        model_dir: model directory or hub id; empty means the embedded model.
        settings: fields of :class:`msa_suites.models.attention.MsaSettings`.
        tasks: names of quality tasks.
        profile: which items.
        device: a torch device.
        dtype: dtype of the weights.
        limit: the first so many items of each task; for trials.
        attentions: ``msa`` is the measurement, ``dense`` tells whether a task carries a signal.
        on_task: progress.

    Returns:
        Rows ``{"task", "metric", "attention", "item", "cluster", "value"}``; recall is 0 or 1,
        NLL is in nats per byte.

    Raises:
        QualityInvalid: contexts at or below topk * block, or prompts that would be cut.
        FileNotFoundError, ValueError: model, items, settings or names that are not right.
    """
    for task in tasks:
        check_name("task", task, TASKS)
    with quiet():
        model = load(model_dir, device, dtype)
    refuse_own(model.model)
    chosen = settings_for(model.model, settings or {})
    if "msa" in attentions:
        check_contexts(tasks, profile=profile, budget=chosen.budget)
    rows = []
    for attention in attentions:
        model.attend(attention, chosen)
        for task in tasks:
            with quiet():
                rows += run_task(model, task, profile=profile, limit=limit)
            if on_task is not None:
                on_task(task, attention)
    return rows


def refuse_own(model: Network) -> None:
    """Refuse a model with MSA of its own: these items are bytes, and its budget is beyond them.

    Raises:
        QualityInvalid: it has.
    """
    if own_settings(model) is not None:
        raise QualityInvalid(
            "items: wanted some of the model's own tokenizer (--items), where it has sparse "
            "attention of its own, got those of the embedded model"
        )


@lru_cache(maxsize=1)
def load(model_dir: str, device: str, dtype: str) -> Any:  # noqa: ANN401 - lm-eval has no types
    """The model of the last call, kept: a run evaluates task by task on one weight load."""
    from msa_suites.models.lm import MsaLM

    return MsaLM(model_dir, attention="dense", device=device, dtype=dtype)


def run_task(
    model: Any,  # noqa: ANN401 - lm-eval's LM; its class is imported late
    task: str,
    *,
    profile: str,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """The rows of one task with the model as it stands."""
    from msa_suites.quality.lm_tasks import TASK_FILES

    samples = run_lm_eval(model, task, files=TASK_FILES, metadata={"profile": profile}, limit=limit)
    return [
        {
            "task": task,
            "metric": metric,
            "attention": model.attention,
            "item": sample["doc"]["item"],
            "cluster": sample["doc"]["cluster"],
            "value": float(sample[metric]),
        }
        for sample in samples
        for metric in sample["metrics"]
    ]


def run_lm_eval(
    model: Any,  # noqa: ANN401 - lm-eval's LM; its class is imported late
    task: str,
    *,
    files: Path,
    metadata: Mapping[str, Any],
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """lm-eval's samples of one task: document, answers, metrics.

    Args:
        model: with the attention that is measured.
        task: its name.
        files: folder of task files.
        metadata: handed to the task's data set.
        limit: the first so many documents.
    """
    from lm_eval.evaluator import evaluate as run
    from lm_eval.tasks import TaskManager

    # lm-eval's own tasks take 14 s to index, and none is wanted.
    manager = TaskManager(include_path=str(files), include_defaults=False, metadata=dict(metadata))
    found = run(
        lm=model,
        task_dict=manager.load([task]),
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
    )
    samples: list[dict[str, Any]] = found["samples"][task]
    return samples
