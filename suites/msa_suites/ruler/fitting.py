"""As much text as fits into a length: lm-eval's steps, found by halving instead of one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from msa_suites.ruler.drawing import Drawn, RulerTask, Sources, example_of_variables, prompt_of
from msa_suites.ruler.sources import seeded
from msa_suites.ruler.tokens import Counter

#: Tokens that are counted in one call: what a call returns stays small at a million tokens.
_AT_ONCE = 1 << 22
#: Tokens of the worked example of `ruler_vt`, as lm-eval has it.
_EXAMPLE = 500


class FitError(ValueError):
    """No item of a task fits into a length."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """An item and its length.

    Attributes:
        drawn: the item.
        tokens: of its whole prompt; with the longest answer they are no more than the length.
    """

    drawn: Drawn
    tokens: int


def fit(
    name: str, task: RulerTask, sources: Sources, count: Counter, *, seed: int, samples: int
) -> Iterator[Fitted]:
    """Items 0 to ``samples`` - 1, each as long as steps of the task allow.

    Raises:
        FitError: the shortest item does not fit, or a data set has fewer questions.
    """
    length, room = sources.length, sources.length - task.answer
    bound = None
    if task.data_set:
        asked, documents = sources.questions[task.data_set]
        bound = -(-len(documents) // task.step)
        if len(asked) < samples:
            raise FitError(f"--samples: wanted at most {len(asked)} for {name}, got {samples}")
    if name == "ruler_vt":
        sources = replace(sources, example=_example(count, seed, length))

    def draw(index: int, size: int) -> Drawn:
        seeded(seed, name, length, index)
        return task.draw(sources, size, index)

    def tokens(size: int) -> int:
        return count([prompt_of(task, draw(0, size))])[0]

    size = task.step * largest(lambda n: tokens(n * task.step) <= room, bound)
    if not size:
        raise FitError(
            f"--lengths: wanted room for {name}, whose shortest item has {tokens(task.step)} "
            f"tokens and its answer {task.answer}, got {length}"
        )
    group = max(1, _AT_ONCE // length)
    for start in range(0, samples, group):
        yield from _group(task, range(start, min(start + group, samples)), size, draw, count, room)


def _group(
    task: RulerTask,
    indices: Sequence[int],
    size: int,
    draw: Callable[[int, int], Drawn],
    count: Counter,
    room: int,
) -> Iterator[Fitted]:
    found: dict[int, Fitted] = {}
    least = 1 if task.data_set else task.step
    while True:
        open_ = [index for index in indices if index not in found]
        drawn = [draw(index, size) for index in open_]
        lengths = count([prompt_of(task, one) for one in drawn])
        for index, one, n in zip(open_, drawn, lengths, strict=True):
            if n <= room:
                found[index] = Fitted(one, n)
        if len(found) == len(indices):
            break
        if size <= least:
            raise FitError(
                f"--lengths: item {open_[0]} has more than {room} tokens at its shortest"
            )
        size = max(least, size - task.step)
    yield from (found[index] for index in indices)


def largest(fits: Callable[[int], bool], bound: int | None = None) -> int:
    """The largest number from 1 to ``bound`` that fits, 0 for none: by doubling, then halving."""
    low, high = 0, 1
    while (bound is None or high <= bound) and fits(high):
        low, high = high, 2 * high
    high = high if bound is None else min(high, bound + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _example(count: Counter, seed: int, length: int) -> str:
    """The worked example of `ruler_vt`: 500 tokens, or what the task's shortest form takes."""

    def drawn(size: int) -> str:
        seeded(seed, "example", length)
        return example_of_variables(size)

    steps = largest(lambda n: count([drawn(5 * n)])[0] <= _EXAMPLE)
    return drawn(5 * max(1, steps))
