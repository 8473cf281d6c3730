"""How well a model recalls, and how surprised it is by text: the numbers of the model card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from statsmodels.stats.proportion import proportion_confint
from torch.nn import functional as F

from msa_suites.models.facts import VALUE_BYTES, VALUE_START, draw_facts, splice
from msa_suites.models.text import Corpus

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FACTS = 12


@dataclass(frozen=True)
class RecallRow:
    """Recall of twelve facts at one context length, with its 95 % Wilson interval."""

    length: int
    recall: float
    low: float
    high: float
    questions: int


@torch.inference_mode()
def recall_by_length(
    model: PreTrainedModel, corpus: Corpus, lengths: Sequence[int], *, contexts: int, seed: int
) -> list[RecallRow]:
    """Share of twelve facts whose both digits are predicted right, on held-out text.

    The twelve questions follow the context in a random order, each with its answer, so that one
    forward pass asks them all; keys are distinct, so no answer helps another.
    """
    rows = []
    for length in lengths:
        right = 0
        for index in range(contexts):
            rng = np.random.default_rng((seed, length, index))
            facts = draw_facts(rng, FACTS)
            questions = [facts[i].query() + facts[i].answer() for i in rng.permutation(FACTS)]
            tail = b"".join(questions)
            start = int(rng.integers(len(corpus.held_out) - length))
            positions = rng.integers(0, length - 2 * len(tail), FACTS).tolist()
            context = splice(
                corpus.held_out[start : start + length],
                [fact.statement() for fact in facts],
                positions,
                length - len(tail),
            )
            tokens = torch.from_numpy(np.frombuffer(context + tail, np.uint8).copy()).long()
            tokens = tokens[None].to(model.device)
            guesses = model(tokens, use_cache=False).logits[0, :-1].argmax(-1)
            hit = (guesses == tokens[0, 1:])[len(context) - 1 :]
            answers = hit.view(FACTS, -1)[:, VALUE_START : VALUE_START + VALUE_BYTES]
            right += int(answers.all(-1).sum())
        asked = contexts * FACTS
        low, high = proportion_confint(right, asked, method="wilson")
        rows.append(RecallRow(length, right / asked, float(low), float(high), asked))
    return rows


@torch.inference_mode()
def perplexity(model: PreTrainedModel, corpus: Corpus, *, length: int, windows: int) -> float:
    """Perplexity per byte over evenly spaced windows of the held-out text."""
    starts = np.linspace(0, len(corpus.held_out) - length - 1, windows).astype(int)
    nll = []
    for start in starts:
        tokens = torch.from_numpy(corpus.held_out[start : start + length].copy()).long()
        tokens = tokens[None].to(model.device)
        logits = model(tokens, use_cache=False).logits[0, :-1].float()
        nll.append(F.cross_entropy(logits, tokens[0, 1:]).item())
    return math.exp(sum(nll) / len(nll))
