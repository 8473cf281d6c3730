"""Training sequences: text with facts and queries spliced in, and the weight of each target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msa_suites.models.facts import (
    FACT_BYTES,
    VALUE_BYTES,
    VALUE_START,
    Fact,
    draw_facts,
    draw_similar_facts,
    draw_values_of_one_key,
)

#: What a target byte counts as in the loss.
IGNORED, TEXT, ANSWER = 0, 1, 2


@dataclass(frozen=True)
class Sequence:
    """``tokens`` uint8 ``[length]`` and, uint8 ``[length]``, the kind of each byte as a target."""

    tokens: NDArray[np.uint8]
    kind: NDArray[np.uint8]


def _kinds(statement: bool, has_first_digit_hint: bool) -> list[int]:
    """Kinds of the seven bytes of a statement or a query.

    Key letters and stated values cannot be predicted from anything, so they do not count;
    a query's value and the marks that end it do.
    """
    value = [IGNORED, IGNORED] if statement else [ANSWER, ANSWER]
    if not statement and has_first_digit_hint:
        value[0] = IGNORED
    kinds = [IGNORED, IGNORED, IGNORED, TEXT, *value, TEXT]
    assert len(kinds) == FACT_BYTES and VALUE_START + VALUE_BYTES == FACT_BYTES - 1
    return kinds


def _draw(rng: np.random.Generator, most: int) -> tuple[list[Fact], bool]:
    """Facts for one sequence and whether they share one key."""
    style = rng.random()
    if style < 0.15 and most >= 2:
        return draw_values_of_one_key(rng, int(rng.integers(2, min(4, most) + 1))), True
    count = int(rng.integers(1, most + 1))
    if style < 0.35:
        return draw_similar_facts(rng, min(count, 26)), False
    return draw_facts(rng, count), False


def make_sequence(
    text: NDArray[np.uint8], rng: np.random.Generator, length: int, plain_share: float = 0.15
) -> Sequence:
    """One training sequence: a random stretch of ``text`` with facts and twice as many queries.

    Every query stands after its fact. ``plain_share`` of the sequences carry no facts at all.
    """
    start = int(rng.integers(len(text) - length))
    stretch = text[start : start + length]
    if rng.random() < plain_share:
        return Sequence(stretch.copy(), np.full(length, TEXT, np.uint8))
    # A third of the sequence at most is facts and queries (three inserts of seven bytes a fact).
    most = max(1, min(24, length // (3 * 3 * FACT_BYTES)))
    facts, one_key = _draw(rng, most)
    room = length - 3 * len(facts) * FACT_BYTES
    inserts: list[tuple[int, float, bytes, list[int]]] = []
    for fact in facts:
        at = int(rng.integers(0, max(1, int(room * 0.9))))
        inserts.append((at, rng.random(), fact.statement(), _kinds(True, False)))
        for _ in range(2):
            later = int(rng.integers(at, room))
            # 1 + random: a query that falls on its fact's own place still comes after it.
            inserts.append(
                (later, 1 + rng.random(), fact.query() + fact.answer(), _kinds(False, one_key))
            )
    inserts.sort(key=lambda insert: insert[:2])
    tokens: list[NDArray[np.uint8]] = []
    kinds: list[NDArray[np.uint8]] = []
    done = 0
    for at, _, data, kind in inserts:
        tokens += [stretch[done:at], np.frombuffer(data, np.uint8)]
        kinds += [np.full(at - done, TEXT, np.uint8), np.array(kind, np.uint8)]
        done = at
    tokens.append(stretch[done:room])
    kinds.append(np.full(room - done, TEXT, np.uint8))
    return Sequence(np.concatenate(tokens), np.concatenate(kinds))
