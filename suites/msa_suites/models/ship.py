"""From a finished training run to a Hugging Face directory: weights, tokenizer, log, model card."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from msa_suites.models.attention import settings_for, use_dense, use_msa
from msa_suites.models.index import save_with_index
from msa_suites.models.probe import RecallRow, perplexity, recall_by_length
from msa_suites.models.shipped import write_sums
from msa_suites.models.tokenizer import write_tokenizer
from msa_suites.models.train import Trainer
from msa_suites.models.training_plan import TrainingPlan

LENGTHS = (512, 1024, 2048, 4096, 8192)

CARD = """\
---
license: mit
library_name: transformers
tags: [msa-bench, byte-level, retrieval-probe]
---

# The embedded model of msa-bench

A byte-level causal language model of {parameters:,} parameters, trained by this repository's own
command so that the quality suite has a model on a machine without a network. It reads text and
recalls facts: after `@ab=42;` somewhere in its context it continues `?ab=` with `42;`.

It is a retrieval probe, not a language model to talk to: the answers follow a rigid pattern.

| | |
|---|---|
| family | Qwen2 ({layers} layers, hidden {hidden}, {heads} query heads, {kv_heads} KV heads) |
| vocabulary | 256 bytes; byte 0 ends and pads |
| context | trained to {longest} bytes |
| text | the standard library of CPython {python} (PSF licence), split by file |
| SHA-256 of the text | `{sha256}` |
| steps, seed | {steps}, {seed} |
| command | `{command}` |
| perplexity per byte, held-out text | {perplexity} |

Recall {attention}:

| context | recall of 12 facts | 95 % interval | questions |
|---|---|---|---|
{recall}
{route}
## Disclosure

{start}
Facts and queries were spliced into the text at random places, with about twice as many queries as
facts; the bytes of a stated fact did not count in the loss, because nothing predicts them.
"""

ATTENTIONS = {
    "dense": "with dense attention",
    "msa": "with MSA as it was trained (the scorer `index`)",
}
INDEX = """
## Index branch

Every layer has a trained index branch (`index_branch.safetensors`, names as in MiniMax-M3): one
query head per KV group and one key head of {dim} channels. Route `{route}`: of {steps} steps the
first {warmup} had full attention; then {kept} blocks of {block} tokens were kept, {local_blocks}
of them local and {sink_blocks} the first. transformers alone loads the model as a dense one.

"""

CONSTRUCTED = """\
The start was CONSTRUCTED: before the first step, the q and k biases of layer 0 were set so that
query head h attends h + 1 bytes back, and all output projections were zero. Everything was trained
from there. The ability to look at neighbours was therefore given, not learned.
"""
GIVEN = "It went on from weights that were trained before; their card says how they began.\n"
PLAIN = "The start was a plain random one (the control run): no bias was constructed.\n"


def ship(
    trainer: Trainer,
    directory: Path,
    *,
    command: str,
    contexts: int = 16,
    lengths: Sequence[int] = LENGTHS,
) -> list[RecallRow]:
    """Write the trained model into ``directory`` and return its recall by length.

    Args:
        trainer: a run that has reached its last step.
        directory: receives config, ``model.safetensors`` (float32), tokenizer, ``training.json``,
            ``README.md`` and ``SHA256SUMS``.
        command: what a reader types to train it again.
        contexts: contexts per length of the recall measurement, twelve questions each; perplexity
            is of twice as many windows of text.
        lengths: context lengths of that measurement, in bytes.

    Raises:
        ValueError: the run is not finished.
    """
    plan = trainer.plan
    if trainer.step != plan.steps:
        raise ValueError(f"training run: wanted {plan.steps} steps, got {trainer.step}")
    model = trainer.finish()
    directory.mkdir(parents=True, exist_ok=True)
    save_with_index(model, directory)
    write_tokenizer(directory, max_length=plan.shape.max_positions)
    measured = {"dense": _measure(trainer, lengths, contexts)}
    if plan.index is not None:
        use_msa(model, settings_for(model, {}))
        measured = {"msa": _measure(trainer, lengths, contexts), **measured}
        use_dense(model)
    recall, surprise = next(iter(measured.values()))
    parameters = sum(p.numel() for p in model.parameters())
    record = {
        "plan": asdict(plan),
        "tokens": plan.tokens,
        "text_sha256": trainer.corpus.sha256,
        "command": command,
        "attention": next(iter(measured)),
        "perplexity_per_byte": surprise,
        "perplexity_windows": 2 * contexts,
        "perplexity_by_attention": {name: value for name, (_, value) in measured.items()},
        "recall": [asdict(row) for row in recall],
        "device": str(trainer.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "log": trainer.log,
    }
    (directory / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    (directory / "README.md").write_text(
        CARD.format(
            parameters=parameters,
            longest=max(length for length, _, _ in plan.curriculum),
            python=platform.python_version(),
            sha256=trainer.corpus.sha256,
            steps=plan.steps,
            seed=plan.seed,
            command=command,
            perplexity=", ".join(f"{value:.3f} ({name})" for name, (_, value) in measured.items()),
            attention=ATTENTIONS[next(iter(measured))],
            recall=_recall_table(recall),
            route=_route_words(plan),
            start=_start_words(plan),
            **{
                name: getattr(plan.shape, name)
                for name in ("layers", "hidden", "heads", "kv_heads")
            },
        )
    )
    write_sums(directory)
    return recall


def _measure(
    trainer: Trainer, lengths: Sequence[int], contexts: int
) -> tuple[list[RecallRow], float]:
    """Recall by length and perplexity of the model with the attention that it has now."""
    model, corpus, seed = trainer.model, trainer.corpus, trainer.plan.seed
    recall = recall_by_length(model, corpus, lengths, contexts=contexts, seed=seed)
    return recall, perplexity(model, corpus, length=2048, windows=2 * contexts)


def _start_words(plan: TrainingPlan) -> str:
    if plan.plain_start is None:
        return GIVEN
    return PLAIN if plan.plain_start else CONSTRUCTED


def _route_words(plan: TrainingPlan) -> str:
    """What a reader of the card must know of how the model came to its attention."""
    words = f"\nIt went on from the weights with SHA-256 `{plan.start}`.\n" if plan.start else ""
    if plan.index is None:
        return words
    sizes = asdict(plan.index)
    sizes["kept"] = " and in turn ".join(str(k) for k in (plan.index.topk, *plan.index.also_topk))
    return words + INDEX.format(
        route=plan.route, steps=plan.steps, dim=sizes.pop("index_dim"), **sizes
    )


def _recall_table(rows: Sequence[RecallRow]) -> str:
    return "\n".join(
        f"| {row.length} | {row.recall:.3f} | {row.low:.3f} to {row.high:.3f} | {row.questions} |"
        for row in rows
    )
