"""What a converted model is asked: text, answers, and how much of attention its selection holds."""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msa.operations import Operations
from msa.recall import block_recall, mass_recall
from msa.recording import LayerRecord, Recorder
from msa.retrofit import RetrofitSettings, apply_retrofit
from msa_harness.statistics import wilson
from msa_suites.models.attention import Network
from msa_suites.models.text import Corpus, load_corpus
from msa_suites.models.training_data import ANSWER, TEXT, Sequence, make_sequence

#: Keeps the drawing of held-out sequences apart from that of training sequences.
_HELD_OUT = 9_001


@lru_cache(maxsize=1)
def corpus() -> Corpus:
    """The text of all runs."""
    return load_corpus()


def held_out(text: Corpus, *, length: int, count: int, seed: int) -> list[Sequence]:
    """``count`` sequences like those of training, from held-out text; the same for all runs."""
    made = []
    for index in range(count):
        rng = np.random.default_rng((seed, _HELD_OUT, index))
        # All with facts, so that all have questions.
        made.append(make_sequence(text.held_out, rng, length, plain_share=0.0))
    return made


@torch.inference_mode()
def read(
    model: Network,
    sequences: Many[Sequence],
    settings: RetrofitSettings | None,
    *,
    operations: Operations | str,
    recorded: int,
) -> dict[str, Any]:
    """Read ``sequences`` and say how well.

    Args:
        model: without a retrofit.
        sequences: the same for all that are compared.
        settings: of MSA; None reads densely.
        operations: the implementation.
        recorded: sequences whose attention mass is taken, the second half of each.

    Returns:
        ``text_nll``, nats per byte; ``answers``, the share that is right with Wilson's interval;
        of MSA also ``mass``, the share of attention that is kept, and ``blocks``, the share kept
        of the k blocks with the most mass. Both are means over queries, groups and layers.
    """
    nats: list[Tensor] = []
    right = asked = 0
    records: list[LayerRecord] = []
    for index, sequence in enumerate(sequences):
        taking = settings is not None and index < recorded
        recorder = Recorder(last=len(sequence.tokens) // 2, mass=True) if taking else None
        made = None
        if settings is not None:
            made = apply_retrofit(model, settings, operations=operations, recorder=recorder)
        with made or nullcontext():
            tokens = torch.from_numpy(sequence.tokens.astype(np.int64)).to(model.device)
            logits = model(tokens[None], use_cache=False).logits[0, :-1].float()
        nll = F.cross_entropy(logits, tokens[1:], reduction="none").cpu()
        kind = sequence.kind[1:]
        nats.append(nll[torch.from_numpy(kind == TEXT)])
        hits, count = count_answers((logits.argmax(-1) == tokens[1:]).cpu().numpy(), kind)
        right, asked = right + hits, asked + count
        records += recorder or ()
    low, high = wilson(right, asked)
    value = right / asked
    answers = {"value": value, "low": min(low, value), "high": max(high, value), "n": asked}
    found: dict[str, Any] = {"text_nll": float(torch.cat(nats).mean()), "answers": answers}
    if records:
        found["mass"] = _mean([mass_recall(_mass(one), one.selection) for one in records])
        found["blocks"] = _mean([_best_kept(one) for one in records])
    return found


def count_answers(hit: np.ndarray[Any, Any], kind: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Answers whose bytes are all right, and answers in all.

    Args:
        hit: bool ``[T]``, bytes that were predicted right.
        kind: uint8 ``[T]``, what each counts as; neighbouring answer bytes are one answer.
    """
    is_answer = kind == ANSWER
    starts = is_answer & ~np.concatenate(([False], is_answer[:-1]))
    count = int(starts.sum())
    number = starts.cumsum()[is_answer] - 1
    misses = np.bincount(number, weights=~hit[is_answer], minlength=count)
    return int((misses == 0).sum()), count


def _mass(record: LayerRecord) -> Tensor:
    if record.mass is None:
        raise ValueError("mass: wanted a record with it, got one without")
    return record.mass


def _best_kept(record: LayerRecord) -> Tensor:
    """Nothing counts as forced, so that runs which force other blocks are compared alike."""
    return block_recall(
        _mass(record),
        record.selection,
        positions=record.positions,
        block=record.block,
        topk=record.selection.shape[-1],
        local_blocks=0,
        sink_blocks=0,
    )


def _mean(shares: Many[Tensor]) -> float | None:
    """Mean over the records; None where no query has more blocks than k."""
    value = float(torch.stack([one.float().nanmean() for one in shares]).mean())
    return value if math.isfinite(value) else None
