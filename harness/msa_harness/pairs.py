"""Base and head in persistent pairs of processes, driven in turn call by call.

A block is one pair of fresh processes, both alive from its start to its end. In it every series is
called up to `alternations` times on each side, in the order base head head base and so on, so that
drift of the machine falls on both alike; the pair is the unit of replication. The control series
runs in every block. Start-up is recorded apart, and so is the share of the cores that foreign
processes took.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from msa_harness.blocks import Block, first_blocks, is_done, more_blocks
from msa_harness.client import CallFailedError, Worker, WorkerError
from msa_harness.conditions import ForeignLoad
from msa_harness.pair_samples import FOREIGN, STARTUP, Rows
from msa_harness.samples import ERROR, WRONG, Key, Sample
from msa_harness.starting import starter
from msa_harness.stored import StoredSets
from msa_harness.timed import (
    Spent,
    TimedSeries,
    clock_problems,
    grouped,
    inputs_of,
    prepare,
    take_turn,
)
from msa_harness.turns import Turns

__all__ = [
    "Block",
    "PairRunner",
    "TimedSeries",
    "first_blocks",
    "more_blocks",
]

_NAMES_SHOWN = 3
#: The median of fewer calls is no median.
_LEAST_TURNS = 4


@dataclass
class PairRunner:
    """Times series in blocks.

    Attributes:
        start: Starts a worker of "base" or "head", with what the series need loaded.
        series: All series, controls among them.
        alternations: Turns of each side in one block, at most.
        seconds: Of calls of a side in one block, after which a slow series has had enough turns.
        sides: ("base", "head"), or ("head",) to measure one alone.
        say: Told what is going on.
        ran: What really ran on a side, for the records; asked once its worker has started.
        repro: Command that repeats a series, by name.
    """

    start: Callable[[str], Worker]
    series: Sequence[TimedSeries]
    alternations: int = 12
    seconds: float = math.inf
    sides: tuple[str, ...] = ("base", "head")
    say: Callable[[str], None] = lambda _text: None
    ran: Callable[[str], str] = lambda _side: ""
    repro: Callable[[str], str] = lambda _name: ""
    _failed: set[str] = field(default_factory=set)
    _late: set[tuple[str, str]] = field(default_factory=set)
    _stored: dict[str, StoredSets] = field(default_factory=dict)
    _rows: Rows = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what could not be judged."""
        names = [one.name for one in self.series]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"series: wanted each name once, got {', '.join(twice)} twice")
        if len(self.sides) > 1 and not any(one.control for one in self.series):
            raise ValueError("series: wanted a control series beside the others, got none")
        if self.alternations < 1:
            raise ValueError(f"alternations: wanted at least 1, got {self.alternations}")
        if not self.seconds > 0:
            raise ValueError(f"seconds: wanted more than 0, got {self.seconds}")
        self._rows = Rows(self.sides, self.ran, self.repro)

    def run(
        self, blocks: Sequence[Block], done: AbstractSet[Key] = frozenset()
    ) -> Iterator[list[Sample]]:
        """Time the blocks; what is in `done` is skipped.

        Yields:
            The samples of one series in one block, all sides together: store them together, so
            that an interrupted run holds whole pairs.

        Raises:
            WorkerError: A worker does not start.
        """
        try:
            with starter(self.start, self.sides) as together:
                for position, block in enumerate(blocks):
                    if todo := self._todo(block, done):
                        where = f"block {position + 1}/{len(blocks)}"
                        yield from self._block(block, todo, where, together, done)
        finally:
            while self._stored:
                self._stored.popitem()[1].close()

    def _block(
        self,
        block: Block,
        todo: Sequence[TimedSeries],
        where: str,
        together: Callable[[Sequence[str]], dict[str, Worker]],
        done: AbstractSet[Key],
    ) -> Iterator[list[Sample]]:
        """Time the series of one block in one pair of processes."""
        self.say(f"{where}: starting {' and '.join(self.sides)} ({block.item})")
        workers = together(self.sides)
        try:
            foreign = ForeignLoad([worker.pid for worker in workers.values()])
            turns = Turns(list(workers.values()))
            if not is_done(STARTUP, block.item, done):
                took = {side: workers[side].start_seconds for side in self.sides}
                yield [self._rows.one(STARTUP, block, side, took[side]) for side in self.sides]
            groups = grouped(todo)
            for index, group in enumerate(groups, start=1):
                names = ", ".join(one.name for one in group[:_NAMES_SHOWN])
                names += " and others in turn" if len(group) > _NAMES_SHOWN else ""
                self.say(f"{where}, step {index}: {names} ({block.item})")
                yield from self._time(group, block, workers, turns)
                if index < len(groups):
                    _forget(group, workers.values())
            if not is_done(FOREIGN, block.item, done):
                yield self._rows.machine(block, foreign.share(), turns.conditions())
        finally:
            with ThreadPoolExecutor(len(workers)) as pool:
                list(pool.map(Worker.close, workers.values()))

    def _sets(self, one: TimedSeries) -> StoredSets:
        if one.name not in self._stored:
            self._stored[one.name] = StoredSets(one.inputs())
        return self._stored[one.name]

    def _todo(self, block: Block, done: AbstractSet[Key]) -> list[TimedSeries]:
        """Open series of a block, with the controls; nothing where there is nothing to control."""
        open_ = [one for one in self.series if not is_done(one.name, block.item, done)]
        left = [one for one in open_ if one.name not in self._failed]
        wanted = [one for one in left if one.name in block.names and not one.control]
        return [one for one in open_ if one.control] + wanted if wanted else []

    def _time(
        self, group: Sequence[TimedSeries], block: Block, workers: dict[str, Worker], turns: Turns
    ) -> Iterator[list[Sample]]:
        """Time the series of a group; a side that fails ends its series for both, for good."""
        spent = {one.name: {side: Spent() for side in self.sides} for one in group}
        checked = {one.name: self._checked_turn(one, block) for one in group}
        problems: dict[str, dict[str, str]] = {one.name: {} for one in group}
        holds: dict[tuple[str, str], Worker] = {}

        def ready(one: TimedSeries, side: str) -> str:
            """Prepare a series on a worker that has not got it: a new one, after a crash."""
            if holds.get((one.name, side)) is workers[side]:
                return ""
            holds[one.name, side] = workers[side]
            action = partial(prepare, one=one, sets=self._sets(one), seed=block.number)
            return self._guarded(side, workers, action)

        for one in group:
            problems[one.name] = {side: ready(one, side) for side in self.sides}
        ended: set[str] = set()
        for turn in range(self.alternations):
            forward = (turn + block.number) % 2 == 0
            for one in group:
                if one.name in ended or any(problems[one.name].values()):
                    continue
                last = self._is_last(turn, spent[one.name].values())
                verify = last if checked[one.name] is None else turn == checked[one.name]
                for side in self.sides if forward else self.sides[::-1]:
                    call = partial(take_turn, one=one, spent=spent[one.name][side], verify=verify)
                    with turns.turn(side):
                        problem = ready(one, side) or self._guarded(side, workers, call)
                    problems[one.name][side] = problem
                if last:
                    ended.add(one.name)
        for one in group:
            if not any(problems[one.name].values()):
                problems[one.name] |= self._late_sides(one.name, spent[one.name])
            if any(problems[one.name].values()):
                self._failed.add(one.name)
            seconds = {side: took.seconds for side, took in spent[one.name].items()}
            yield self._rows.timed(one.name, block, seconds, problems[one.name])

    def _late_sides(self, name: str, spent: dict[str, Spent]) -> dict[str, str]:
        """Sides whose clock did not tell all in two blocks, the second time.

        Of 800 series in blocks of identical code one was late in its block, nobody knows why.
        """
        late = clock_problems(spent)
        again = {side: ERROR + text for side, text in late.items() if (name, side) in self._late}
        self._late |= {(name, side) for side in late}
        return again

    def _checked_turn(self, one: TimedSeries, block: Block) -> int | None:
        """Which turn is checked: the last one (None) or one of the first, as often, drawn."""
        least = min(self.alternations, _LEAST_TURNS)
        drawn = random.Random(f"{one.name} {block.item}").randrange(2 * least)
        return drawn if drawn < least else None

    def _is_last(self, turn: int, spent: Iterable[Spent]) -> bool:
        """Whether turn number `turn` ends a series; both sides get as many turns."""
        if turn + 1 >= min(self.alternations, _LEAST_TURNS):
            slower = max(sum(one.seconds) for one in spent)
            with_this = slower * (turn + 1) / max(turn, 1)
            return turn + 1 == self.alternations or with_this >= self.seconds
        return False

    def _guarded(
        self, side: str, workers: dict[str, Worker], action: Callable[[Worker], str]
    ) -> str:
        """What went wrong, in the words of a sample's detail; a dead worker is replaced."""
        try:
            problem = action(workers[side])
        except CallFailedError as error:
            return f"{WRONG}{error.type}: {error.message}"
        except WorkerError as error:
            workers[side] = self.start(side)
            return f"{ERROR}{error}"
        return f"{WRONG}{problem}" if problem else ""


def _forget(group: Iterable[TimedSeries], workers: Iterable[Worker]) -> None:
    """Make room for the inputs of the next group."""
    for worker in workers:
        for one in group:
            with suppress(WorkerError):
                worker.drop(inputs_of(one))
