"""Likelihood of plain text: the last words of a window, after all of it or after less and less."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msa_suites.ruler.fitting import FitError
from msa_suites.ruler.sources import SourceError, read_text
from msa_suites.ruler.tokens import Counter

#: Words at the end of a window whose likelihood is measured.
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
            FitError: the text has less than two such windows.
        """
        ends = self._ends(length, most)
        for document, (start, end) in enumerate(ends):
            yield self._passage(start, end, length, document)

    def tail(self, lengths: list[int], *, most: int) -> Iterator[Passage]:
        """The last words of up to ``most`` windows after contexts of each length.

        Raises:
            FitError: the text has less than two windows of the greatest length.
        """
        for document, (_, end) in enumerate(self._ends(max(lengths), most)):
            for length in lengths:
                start = self._start(end, length)
                yield self._passage(start, end, length, document)

    def _ends(self, length: int, most: int) -> list[tuple[int, int]]:
        """First word and end of disjoint windows with at most ``length`` tokens."""
        found: list[tuple[int, int]] = []
        start = 0
        while len(found) < most:
            end = self._end(start, length)
            if end is None:
                break
            found.append((start, end))
            start = end
        if len(found) < 2:
            raise FitError(
                f"--text: wanted text for two windows of {length} tokens at least, "
                f"got {len(self._words)} words"
            )
        return found

    def _end(self, start: int, length: int) -> int | None:
        """The last end of a window from ``start`` on that fits; None where the text is over."""
        room = len(self._words) - start
        fits = _most(lambda n: self._tokens(start, start + n), min(room, length), length)
        return None if fits == room or fits <= SCORED else start + fits

    def _start(self, end: int, length: int) -> int:
        """The first start of a window up to ``end`` that fits."""
        return end - max(
            SCORED + 1, _most(lambda n: self._tokens(end - n, end), min(end, length), length)
        )

    def _tokens(self, start: int, end: int) -> int:
        return self._count(["".join(self._words[start:end]).lstrip()])[0]

    def _passage(self, start: int, end: int, length: int, document: int) -> Passage:
        prompt = "".join(self._words[start : end - SCORED]).lstrip()
        answer = "".join(self._words[end - SCORED : end])
        tokens = sum(self._count([prompt, answer]))
        return Passage(prompt, answer, tokens, length, document)


def _most(tokens: Callable[[int], int], room: int, length: int) -> int:
    """The most words, at most ``room``, that have at most ``length`` tokens; by halving."""
    low, high = 0, room + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tokens(middle) <= length else (low, middle)
    return low
