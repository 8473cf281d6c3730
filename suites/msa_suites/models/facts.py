"""The fact grammar of the embedded model: ``@ab=42;`` states a fact, ``?ab=42;`` recalls it.

One place for it, because the training data, the quality items and the documentation must agree
to the byte. A key is two lower-case letters, a value two digits.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FACT_BYTES = len(b"@ab=42;")
#: Offset of the value inside a fact or a query, and its length.
VALUE_START, VALUE_BYTES = 4, 2
_LETTERS = string.ascii_lowercase


@dataclass(frozen=True)
class Fact:
    """A key of two letters and a value of two digits."""

    key: str
    value: str

    def statement(self) -> bytes:
        """``@ab=42;``"""
        return f"@{self.key}={self.value};".encode()

    def query(self) -> bytes:
        """``?ab=``: what a prompt ends with."""
        return f"?{self.key}=".encode()

    def answer(self) -> bytes:
        """``42;``: what follows the query."""
        return f"{self.value};".encode()


def draw_value(rng: np.random.Generator) -> str:
    return f"{rng.integers(100):02d}"


def draw_facts(rng: np.random.Generator, count: int) -> list[Fact]:
    """``count`` facts with distinct keys."""
    picks = rng.choice(26 * 26, size=count, replace=False)
    return [Fact(_LETTERS[p // 26] + _LETTERS[p % 26], draw_value(rng)) for p in picks]


def draw_similar_facts(rng: np.random.Generator, count: int) -> list[Fact]:
    """``count`` facts whose keys all share their first or their second letter (at most 26)."""
    shared = _LETTERS[rng.integers(26)]
    others = rng.choice(26, size=count, replace=False)
    first = bool(rng.integers(2))
    keys = [shared + _LETTERS[o] if first else _LETTERS[o] + shared for o in others]
    return [Fact(key, draw_value(rng)) for key in keys]


def draw_values_of_one_key(rng: np.random.Generator, count: int) -> list[Fact]:
    """``count`` facts with one key and values that differ in their first digit (at most 10).

    Given the first digit, the second is determined: that is how every value of a key can be
    asked for one at a time.
    """
    key = _LETTERS[rng.integers(26)] + _LETTERS[rng.integers(26)]
    tens = rng.choice(10, size=count, replace=False)
    return [Fact(key, f"{t}{rng.integers(10)}") for t in tens]


def splice(
    text: NDArray[np.uint8], inserts: Sequence[bytes], positions: Sequence[int], length: int
) -> bytes:
    """``length`` bytes: the start of ``text``, each insert put before byte ``positions[i]`` of it.

    Raises:
        ValueError: the text and the inserts together are shorter than ``length``.
    """
    total = sum(map(len, inserts))
    need = length - total
    if need < 0 or len(text) < need:
        raise ValueError(
            f"splice: wanted {length} bytes, got {len(text)} of text and {total} of inserts"
        )
    out: list[bytes] = []
    done = 0
    for position, insert in sorted(zip(positions, inserts, strict=True), key=lambda pair: pair[0]):
        out.append(text[done:position].tobytes())
        out.append(insert)
        done = position
    out.append(text[done:need].tobytes())
    return b"".join(out)
