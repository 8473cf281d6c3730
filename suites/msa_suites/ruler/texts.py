"""Likelihood of plain text: the last words of a window, after all of it or after less and less."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msa_suites.ruler.fitting import FitError, largest
from msa_suites.ruler.sources import SourceError, read_text
from msa_suites.ruler.tokens import Counter

#: Tokens at the end of a window whose likelihood is measured; at least as many stand before.
SCORED = 256
#: Names of the tasks.
PERPLEXITY, TAIL = "text_perplexity", "text_tail_nll"
TEXT_TASKS = (PERPLEXITY, TAIL)


@dataclass(frozen=True, slots=True)
class Passage:
    """A context and how it goes on.

    Attributes:
        prompt: the context.
        answer: the next words, with the white space before them.
        tokens: of both together.
        length: tokens that they may have.
        document: number of the window: passages of one are not independent.
    """

    prompt: str
    answer: str
    tokens: int
    length: int
    document: int


def find_text(name: str) -> str:
    """A text file, or the column ``text`` of a data set, as ``name[:configuration[:split]]``.

    Raises:
        SourceError: it is neither, or the data set cannot be had.
    """
    if Path(name).exists() or "/" not in name.partition(":")[0]:
        return read_text(Path(name), "--text")
    from datasets import load_dataset

    where, configuration, split = [*name.split(":"), "", ""][:3]
    try:
        rows = load_dataset(where, configuration or None, split=split or "test")
        return "\n".join(rows["text"])
    except Exception as error:  # of a data set out of reach, the library raises whatever it meets
        raise SourceError(
            f"--text: wanted a file, or a data set with a column `text` as "
            f"name[:configuration[:split]], got {name!r}: {type(error).__name__}: "
            f"{str(error)[:200]}"
        ) from error


class Windows:
    """Disjoint windows of a text in whole words.

    Args:
        text: all of it.
        count: counts tokens.
    """

    def __init__(self, text: str, count: Counter) -> None:
        self._words = re.findall(r"\s*\S+", text)
        self._count = count

    def perplexity(self, length: int, *, most: int) -> Iterator[Passage]:
        """Up to ``most`` windows of ``length`` tokens, each with its last words as the answer.

        Raises:
            FitError: the text has less than two such windows, or they are too short.
        """
        ends = self._ends(length, most)
        for document, (start, end) in enumerate(ends):
            yield self._passage(start, end, length, document)

    def tail(self, lengths: list[int], *, most: int) -> Iterator[Passage]:
        """The last words of up to ``most`` windows after contexts of each length.

        Raises:
            FitError: the text has less than two windows of the greatest length.
        """
        _check(min(lengths))
        for document, (_, end) in enumerate(self._ends(max(lengths), most)):
            for length in lengths:
                start = self._start(end, length)
                yield self._passage(start, end, length, document)

    def _ends(self, length: int, most: int) -> list[tuple[int, int]]:
        """First word and end of disjoint windows with at most ``length`` tokens."""
        _check(length)
        found: list[tuple[int, int]] = []
        start = 0
        while len(found) < most:
            room = len(self._words) - start
            fits = self._fitting(start, min(room, length), length)
            if fits == room:  # the text is over: its last window may be a short one
                break
            if fits > 1:
                found.append((start, start + fits))
            start += max(fits, 1)  # behind a word that is longer than a window
        if len(found) < 2:
            raise FitError(
                f"--text: wanted text for two windows of {length} tokens at least, "
                f"got {len(self._words)} words"
            )
        return found

    def _fitting(self, start: int, room: int, length: int) -> int:
        """The most words from ``start`` on that have at most ``length`` tokens."""
        return largest(lambda n: self._tokens(start, start + n) <= length, room)

    def _start(self, end: int, length: int) -> int:
        """The first start of a window up to ``end`` that fits."""
        return end - largest(lambda n: self._tokens(end - n, end) <= length, min(end, length))

    def _tokens(self, start: int, end: int) -> int:
        return self._count(["".join(self._words[start:end]).lstrip()])[0]

    def _passage(self, start: int, end: int, length: int, document: int) -> Passage:
        scored = largest(lambda n: self._tokens(end - n, end) <= SCORED, end - start - 1)
        middle = end - max(1, scored)
        prompt = "".join(self._words[start:middle]).lstrip()
        answer = "".join(self._words[middle:end])
        return Passage(prompt, answer, self._tokens(start, end), length, document)


def _check(length: int) -> None:
    if length < 2 * SCORED:
        raise FitError(f"--lengths: wanted at least {2 * SCORED} for text, got {length}")
