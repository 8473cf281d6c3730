"""What the task files of a folder refer to: its items as a data set, and lm-eval's own scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msa_suites.quality.errors import ItemsError
from msa_suites.ruler.drawing import TASKS
from msa_suites.ruler.kept import load_kept


def dataset(
    *, task: str, items: str = "", indices: Sequence[int] | None = None, **_others: object
) -> dict[str, Any]:
    """The items of a task as a data set in memory: no cache, no download.

    Args:
        task: name, from the task file's ``dataset_kwargs``.
        items: the folder, from the task manager's metadata or ``--metadata`` on the command line.
        indices: these items alone, from the same metadata; None: all.
        _others: the rest of that metadata (the model's arguments), of no use here.

    Raises:
        ItemsError: no folder is named, or it does not hold what its manifest says.
    """
    from datasets import Dataset

    if not items:
        raise ItemsError(f"items: wanted the folder of {task} in --metadata, got none")
    kept = load_kept(Path(items), task)
    return {"test": Dataset.from_list(kept if indices is None else [kept[i] for i in indices])}


def all_outputs(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The share of the outputs that the answer contains, named by the length, as in lm-eval."""
    from lm_eval.tasks.ruler.common_utils import postprocess_pred, string_match_all

    return {str(doc["max_length"]): string_match_all(postprocess_pred(results), [doc["outputs"]])}


def any_output(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The same for outputs that are ways to say one answer, as lm-eval scores them."""
    from lm_eval.tasks.ruler.common_utils import postprocess_pred, string_match_part

    return {str(doc["max_length"]): string_match_part(postprocess_pred(results), [doc["outputs"]])}


def nll(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """``nll_<length>``: nats per byte of the answer."""
    return {f"nll_{doc['max_length']}": -results[0][0] / len(doc["answer"].encode())}


def found(outputs: Sequence[str], answer: str, *, every: bool) -> list[float]:
    """Which outputs an answer contains, 0 or 1 each; without ``every``, whether any, as one number.

    Their mean is lm-eval's score where all are wanted.
    """
    from lm_eval.tasks.ruler.common_utils import postprocess_pred

    said = postprocess_pred([answer])[0].lower()
    hits = [float(output.lower() in said) for output in outputs]
    return hits if every else [max(hits)]


def values_of(task: str, doc: Mapping[str, Any]) -> int:
    """How many values an item has: one for every output that is wanted, one where any will do."""
    return len(doc["outputs"]) if task in TASKS and TASKS[task].all_outputs else 1
