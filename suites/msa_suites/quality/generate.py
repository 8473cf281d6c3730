"""Generation of the quality items: a pure function of the seed and the held-out text.

Run ``python -m msa_suites.quality.generate --out DIR`` to write the files again. Contexts of one
task come from disjoint stretches of text; facts keep clear of the first and the last bytes of a
context, which forced blocks reach without any selection.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa_suites.models.facts import (
    VALUE_START,
    Fact,
    draw_facts,
    draw_similar_facts,
    draw_values_of_one_key,
    splice,
)
from msa_suites.models.text import load_corpus
from msa_suites.quality.items import DATA, write_items

#: Text is dealt in stretches of this many bytes, one to a document.
STRETCH = 8192 + 64
#: Bytes at either end of a context that hold no fact.
HEAD_CLEAR, TAIL_CLEAR = 96, 256
TAIL = 256
#: Perplexity counts from here on: earlier bytes have too little context to be sparse.
PERPLEXITY_FROM = 512
_WHITESPACE = b" \n"

Text = NDArray[np.uint8]
Question = tuple[str, str]


@dataclass(frozen=True)
class Batch:
    """``documents`` contexts of ``length`` bytes, first asked in ``profile``."""

    profile: str
    length: int
    documents: int


def _fact_question(fact: Fact) -> Question:
    return fact.query().decode(), fact.value


def _single(rng: np.random.Generator) -> tuple[list[Fact], list[Question]]:
    facts = draw_facts(rng, 1)
    return facts, [_fact_question(facts[0])]


def _multikey(rng: np.random.Generator) -> tuple[list[Fact], list[Question]]:
    facts = draw_similar_facts(rng, 6)
    return facts, [_fact_question(fact) for fact in facts]


def _multivalue(rng: np.random.Generator) -> tuple[list[Fact], list[Question]]:
    facts = draw_values_of_one_key(rng, 4)
    # The first digit is given: it says which of the key's values is meant.
    return facts, [(fact.query().decode() + fact.value[0], fact.value[1]) for fact in facts]


def _multiquery(rng: np.random.Generator) -> tuple[list[Fact], list[Question]]:
    facts = draw_facts(rng, 8)
    asked, questions = "", []
    for index in rng.permutation(len(facts)):
        fact = facts[index]
        questions.append((asked + fact.query().decode(), fact.value))
        asked += (fact.query() + fact.answer()).decode()
    return facts, questions


def _facts(rng: np.random.Generator) -> tuple[list[Fact], list[Question]]:
    facts = draw_facts(rng, 12)
    return facts, [_fact_question(fact) for fact in facts]


Drawing = Callable[[np.random.Generator], tuple[list[Fact], list[Question]]]

#: Recall tasks: how facts and questions are drawn, and how many documents there are.
RECALL_PLAN: dict[str, tuple[Drawing, tuple[Batch, ...]]] = {
    "msa_niah_single": (
        _single,
        (Batch("quick", 2048, 16), Batch("standard", 4096, 48), Batch("full", 8192, 40)),
    ),
    "msa_niah_multikey": (
        _multikey,
        (Batch("quick", 2048, 8), Batch("standard", 4096, 16), Batch("full", 8192, 16)),
    ),
    "msa_niah_multivalue": (
        _multivalue,
        (Batch("quick", 2048, 8), Batch("standard", 4096, 16), Batch("full", 8192, 16)),
    ),
    "msa_niah_multiquery": (
        _multiquery,
        (Batch("quick", 2048, 6), Batch("standard", 4096, 8), Batch("full", 8192, 12)),
    ),
    "msa_facts": (
        _facts,
        (
            # Sixteen contexts: one fact that a harmless change flips is still a PASS.
            Batch("quick", 2048, 14),
            Batch("quick", 4096, 2),
            Batch("standard", 2048, 8),
            Batch("standard", 4096, 8),
            Batch("standard", 8192, 4),
            Batch("full", 2048, 32),
            Batch("full", 4096, 24),
            Batch("full", 8192, 12),
        ),
    ),
}

#: Lengths of the tail task by profile; the last byte is the same at each.
TAIL_LENGTHS = {"quick": (512, 2048, 4096), "later": (512, 1024, 2048, 4096, 8192)}
TAIL_PLAN = (Batch("quick", 8192, 4), Batch("standard", 8192, 12), Batch("full", 8192, 32))
PERPLEXITY_PLAN = (Batch("quick", 2048, 8), Batch("standard", 2048, 32), Batch("full", 2048, 64))


def _generator(seed: int, *key: str | int) -> np.random.Generator:
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _stretches(held_out: Text, seed: int, task: str) -> list[Text]:
    """All disjoint stretches of the text, in an order of the task's own."""
    count = len(held_out) // STRETCH
    order = _generator(seed, task, "order").permutation(count)
    return [held_out[i * STRETCH : (i + 1) * STRETCH] for i in order]


def _places(rng: np.random.Generator, count: int, ordinal: int, room: int) -> list[int]:
    """Text positions for ``count`` facts, spread evenly; one fact alone wanders over documents."""
    low, high = HEAD_CLEAR, room - TAIL_CLEAR
    if count == 1:
        # Multiples of the golden section cover the depths evenly however many documents there are.
        return [low + int((ordinal * 0.6180339887 + 0.5) % 1.0 * (high - low))]
    width = (high - low) / count
    return [int(low + (slot + rng.random()) * width) for slot in rng.permutation(count)]


def recall_document(
    text: Text, rng: np.random.Generator, *, draw: Drawing, batch: Batch, ordinal: int
) -> dict[str, Any]:
    """A context of exactly ``batch.length`` bytes with its facts, and the questions on them."""
    facts, questions = draw(rng)
    statements = [fact.statement() for fact in facts]
    room = batch.length - sum(map(len, statements))
    places = _places(rng, len(facts), ordinal, room)
    context = splice(text, statements, places, batch.length).decode("ascii")
    assert all(len(query) >= VALUE_START for query, _ in questions)
    items = [[0, batch.length, query, value] for query, value in questions]
    return {"profile": batch.profile, "text": context, "items": items}


def _shift(text: Text, boundary: int) -> int:
    """Least shift that puts a visible byte just before ``boundary``.

    lm-eval moves white space from the end of a prompt into the answer.
    """
    return next(s for s in range(len(text)) if text[boundary - 1 + s] not in _WHITESPACE)


def tail_document(text: Text, batch: Batch) -> dict[str, Any]:
    """One document and its last bytes after growing context."""
    shift = _shift(text, batch.length - TAIL)
    stretch = text[shift : shift + batch.length].tobytes().decode("ascii")
    lengths = TAIL_LENGTHS.get(batch.profile, TAIL_LENGTHS["later"])
    end = batch.length - TAIL
    items = [[batch.length - length, end, "", None] for length in lengths]
    return {"profile": batch.profile, "text": stretch, "items": items}


def perplexity_document(text: Text, batch: Batch) -> dict[str, Any]:
    """One document, scored from ``PERPLEXITY_FROM`` to its end."""
    shift = _shift(text, PERPLEXITY_FROM)
    stretch = text[shift : shift + batch.length].tobytes().decode("ascii")
    return {"profile": batch.profile, "text": stretch, "items": [[0, PERPLEXITY_FROM, "", None]]}


def generate(held_out: Text, *, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Every document of every task.

    Args:
        held_out: uint8 ``[n]``, ASCII without the two marks of facts and queries.
        seed: decides the facts, their places and the choice of text.

    Raises:
        ValueError: too little text for disjoint documents.
    """
    made: dict[str, list[dict[str, Any]]] = {}
    for task, (draw, batches) in RECALL_PLAN.items():
        texts = iter(_enough(held_out, seed, task, batches))
        made[task] = []
        for batch in batches:
            for index in range(batch.documents):
                rng = _generator(seed, task, batch.profile, batch.length, index)
                document = recall_document(next(texts), rng, draw=draw, batch=batch, ordinal=index)
                made[task].append(document)
    plain: dict[str, tuple[tuple[Batch, ...], Callable[[Text, Batch], dict[str, Any]]]] = {
        "msa_tail_nll": (TAIL_PLAN, tail_document),
        "msa_perplexity": (PERPLEXITY_PLAN, perplexity_document),
    }
    for task, (batches, make) in plain.items():
        texts = iter(_enough(held_out, seed, task, batches))
        made[task] = [make(next(texts), batch) for batch in batches for _ in range(batch.documents)]
    return made


def _enough(held_out: Text, seed: int, task: str, batches: tuple[Batch, ...]) -> list[Text]:
    wanted = sum(batch.documents for batch in batches)
    texts = _stretches(held_out, seed, task)
    if len(texts) < wanted:
        raise ValueError(
            f"held_out: wanted {wanted} stretches of {STRETCH} bytes for {task}, got {len(texts)}"
        )
    return texts[:wanted]


def main() -> None:
    """Write the items of the running Python's standard library."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    corpus = load_corpus()
    about = {
        "seed": arguments.seed,
        "corpus_sha256": corpus.sha256,
        "python": platform.python_version(),
    }
    write_items(generate(corpus.held_out, seed=arguments.seed), about, arguments.out)


if __name__ == "__main__":
    main()
