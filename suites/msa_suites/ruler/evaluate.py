"""Items of a folder on one subject's model: runs inside the worker process of that subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from msa_suites.models.attention import (
    MsaSettings,
    Network,
    own_settings,
    settings_for,
    trained_settings,
)
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.evaluate import load, run_lm_eval
from msa_suites.quality.quiet import quiet
from msa_suites.ruler.drawing import TASKS
from msa_suites.ruler.kept import TASK_FILES, read_folder
from msa_suites.ruler.lm_tasks import found
from msa_suites.ruler.tokens import fingerprint

#: The paper's 16 blocks of 128 tokens, the local one among them.
PAPER: dict[str, object] = {"topk": 16, "block": 128, "sink_blocks": 0, "local_blocks": 1}
#: The implementation that a model with MSA of its own runs.
OWN = "transformers"


def evaluate_kept(
    model_dir: str,
    *,
    items: str,
    task: str,
    indices: Sequence[int],
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    attentions: Sequence[str] = ("dense", "msa"),
) -> list[dict[str, Any]]:
    """What the model answers to some items of a task, through lm-eval.

    Args:
        model_dir: model directory or hub id; empty means the embedded model.
        items: folder that ``msa-bench items`` has written.
        task: one of its tasks.
        indices: which items, counted over all lengths of the task.
        settings: fields of :class:`msa_suites.models.attention.MsaSettings`.
        device: a torch device.
        dtype: dtype of the weights.
        attentions: ``msa`` is the measurement, ``dense`` tells whether a task carries a signal.

    Returns:
        Rows as those of :func:`msa_suites.quality.evaluate.evaluate`. Metrics: ``recall_<length>``,
        0 or 1 for every output that an answer must contain (one for all, where they are ways to
        say the same), so that their mean is RULER's score; ``nll_<length>`` in nats per byte.

    Raises:
        QualityInvalid: the items were fitted to another tokenizer, would be cut, or are no longer
            than MSA's budget.
        ItemsError: the folder does not hold what its manifest says.
    """
    model = _fitted(model_dir, device, dtype, Path(items))
    chosen = _settings(model.model, settings or {})
    rows: list[dict[str, Any]] = []
    for attention in attentions:
        model.attend(attention, chosen)
        with quiet():
            samples = run_lm_eval(
                model,
                task,
                files=Path(items) / TASK_FILES,
                metadata={"items": items, "indices": list(indices)},
            )
        for sample in samples:
            doc = sample["doc"]
            about = {"task": task, "attention": attention, "cluster": doc["item"]}
            for name, metric, value in _values(task, doc, sample):
                rows.append({**about, "item": name, "metric": metric, "value": value})
    return rows


@lru_cache(maxsize=1)  # a vocabulary is read once a run, not once a call
def _fitted(model_dir: str, device: str, dtype: str, items: Path) -> Any:  # noqa: ANN401
    """The model, to whose tokenizer the items were fitted.

    Raises:
        QualityInvalid: they were fitted to another.
    """
    with quiet():
        model = load(model_dir, device, dtype)
    if fingerprint(model.tokenizer) != read_folder(items).settings["tokenizer"]:
        raise QualityInvalid(
            f"items: wanted some that were fitted to the model's tokenizer, got {items}, which "
            "counts the tokens of another: its lengths are not this model's"
        )
    return model


def _settings(model: Network, given: Mapping[str, Any]) -> MsaSettings:
    """What is given over the paper's, or what the model's own MSA has.

    Raises:
        QualityInvalid: the implementation that is measured would not run.
    """
    named = str(given.get("implementation", ""))
    if own_settings(model) is None:
        return settings_for(model, {**PAPER, **trained_settings(model), **given})
    if named != OWN:
        raise QualityInvalid(
            f"implementation: wanted {OWN}, whose sparse attention this model has of its own, got "
            f"{named!r}, which would not run"
        )
    return settings_for(model, given)


def _values(
    task: str, doc: Mapping[str, Any], sample: Mapping[str, Any]
) -> list[tuple[str, str, float]]:
    """Item, metric and value of everything that a document tells."""
    length = doc["max_length"]
    if task not in TASKS:
        metric = f"nll_{length}"
        return [(doc["item"], metric, float(sample[metric]))]
    hits = found(doc["outputs"], sample["filtered_resps"][0], every=TASKS[task].all_outputs)
    return [(f"{doc['item']}/{i}", f"recall_{length}", hit) for i, hit in enumerate(hits)]
