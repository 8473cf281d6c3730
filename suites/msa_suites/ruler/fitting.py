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
    if task.data_set and len(sources.questions[task.data_set][0]) < samples:
        have = len(sources.questions[task.data_set][0])
        raise FitError(f"--samples: wanted at most {have} for {name}, got {samples}")
    if name == "ruler_vt":
        sources = replace(sources, example=_example(count, seed, length))

    def draw(index: int, size: int) -> Drawn:
        seeded(seed, name, length, index)
        return task.draw(sources, size, index)

    def tokens(size: int) -> int:
        return count([prompt_of(task, draw(0, size))])[0]

    size = _largest(tokens, room, task.step)
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


def _largest(tokens: Callable[[int], int], room: int, step: int) -> int:
    """The largest multiple of ``step`` whose item has at most ``room`` tokens; 0 for none."""
    low, high, before = 0, 1, 0  # in steps: low fits, high does not
    while (now := tokens(high * step)) <= room:
        if now == before:  # all documents that there are
            return high * step
        low, high, before = high, 2 * high, now
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tokens(middle * step) <= room else (low, middle)
    return low * step


def _example(count: Counter, seed: int, length: int) -> str:
    """The worked example of `ruler_vt`: 500 tokens, or what the task's shortest form takes."""
    seeded(seed, "example")

    def drawn(size: int) -> str:
        seeded(seed, "example", length)
        return example_of_variables(size)

    return drawn(max(5, _largest(lambda size: count([drawn(size)])[0], _EXAMPLE, 5)))
