"""Which pairs of processes time which series: the first set, what the judge asks for beyond it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from msa_harness.gates import GateTable
from msa_harness.samples import Key
from msa_harness.timed_pairs import CONFIRM
from msa_harness.verdicts import More

SUITE = "speed"
FIRST = "pair"
# Pairs added at a time when the first set does not decide; a look takes no time.
STEP = 2


@dataclass(frozen=True, slots=True)
class Block:
    """One pair of processes: its item ("pair-03", "confirm-00") and the series it times."""

    item: str
    names: frozenset[str]

    @property
    def number(self) -> int:
        """Position in its set; its parity decides who goes first."""
        return int(self.item.rpartition("-")[2].partition(".")[0])


def first_blocks(names: Collection[str], gates: GateTable) -> list[Block]:
    """The pairs that every series gets before it is judged for the first time."""
    wanted = {name: (FIRST, 0, _pairs(name, gates)) for name in names}
    return _blocks(wanted)


def more_blocks(
    wanted: Mapping[str, More | str], done: AbstractSet[Key], gates: GateTable, *, step: int = STEP
) -> list[Block]:
    """The pairs that answer the judge's requests, "more" or "confirm" by series.

    Args:
        wanted: Series to request, from `judge.needs_more`.
        done: Keys that the run holds.
        gates: Say how many pairs at most.
        step: Pairs added at a time for "more".
    """
    ranges = {}
    for name, request in wanted.items():
        items = {item for _, series, _, item in done if series == name}
        prefix = CONFIRM if request == "confirm" else FIRST
        have = sum(item.startswith(prefix) for item in items)
        gate = gates.gate_for(name)
        if request == "confirm":  # the judge looks at every so many of them
            look = _pairs(name, gates)
            ranges[name] = (CONFIRM, 0, (have // look + 1) * look)
        else:
            most = gate.max_pairs if gate is not None else have + step
            goal = max(_pairs(name, gates), min(have + step, most))
            ranges[name] = (FIRST, 0, goal)
    blocks = _blocks(ranges)
    left = [
        (block, frozenset(name for name in block.names if not is_done(name, block.item, done)))
        for block in blocks
    ]
    return [Block(block.item, names) for block, names in left if names]


def _pairs(name: str, gates: GateTable) -> int:
    gate = gates.gate_for(name)
    return gate.pairs if gate is not None else 2


def _blocks(wanted: Mapping[str, tuple[str, int, int]]) -> list[Block]:
    names: dict[tuple[str, int], set[str]] = {}
    for name, (prefix, first, last) in wanted.items():
        for number in range(first, last):
            names.setdefault((prefix, number), set()).add(name)
    # The first set before confirmations: a control must be judged with the set it guards.
    order = sorted(names, key=lambda key: (key[0] == CONFIRM, key[1]))
    return [Block(f"{prefix}-{n:02d}", frozenset(names[prefix, n])) for prefix, n in order]


def is_done(name: str, item: str, done: AbstractSet[Key]) -> bool:
    """Whether a series has a sample of an item; a torn pair is not measured again."""
    return any((SUITE, name, side, item) in done for side in ("base", "head"))
