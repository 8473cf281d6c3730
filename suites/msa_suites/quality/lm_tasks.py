"""What the task files in ``tasks/`` refer to: the items as a data set, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msa_suites.quality.items import load_items

TASK_FILES = Path(__file__).parent / "tasks"


def dataset(*, task: str, profile: str = "quick", **_others: object) -> dict[str, Any]:
    """The items of a task as a data set in memory: no cache, no download.

    Args:
        task: name, from the task file's ``dataset_kwargs``.
        profile: from the task manager's metadata, or ``--metadata`` on lm-eval's command line.
        _others: the rest of that metadata (the model's arguments), of no use here.
    """
    from datasets import Dataset

    rows = [
        {
            "prompt": item.prompt,
            "answer": item.answer,
            "item": item.hash,
            "cluster": item.cluster,
            "length": item.length,
        }
        for item in load_items(task, profile=profile)
    ]
    return {"test": Dataset.from_list(rows)}


def recall(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """``recall``: whether every byte of the answer was the likeliest; ``nll``: nats per byte."""
    log_likelihood, greedy = results[0]
    return {"recall": float(greedy), "nll": -log_likelihood / len(doc["answer"])}


def nll(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """``nll``: nats per byte."""
    return {"nll": -results[0][0] / len(doc["answer"])}


def nll_by_length(
    doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]
) -> dict[str, float]:
    """``nll_512`` and so on: nats per byte, one metric per context length."""
    return {f"nll_{doc['length']}": -results[0][0] / len(doc["answer"])}
