"""Shared and tensor memory that know who wrote and who read what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msa_kernels.gluon_ops.simulating.agents import (
    Agent,
    BoundsError,
    Machine,
    RaceError,
    SimulationError,
)

#: A slot and the columns of it: what an access touches.
Region = tuple[int, int, int]


@dataclass
class _Write:
    region: Region
    who: str
    when: tuple[int, int]
    fenced: bool


@dataclass
class _Read:
    region: Region
    who: str
    when: tuple[int, int]


@dataclass
class Memory:
    """Shared or tensor memory: slots of rows and columns.

    Attributes:
        name: for messages.
        data: ``[slots, rows, columns]``, or ``[slots, rows]``.
        machine: whose agents touch it.
        swizzled: whether threads' stores need a fence before bulk copies and products read them.
    """

    name: str
    data: Tensor
    machine: Machine
    swizzled: bool
    writes: list[_Write] = field(default_factory=list)
    reads: list[_Read] = field(default_factory=list)

    def check_read(self, region: Region, agent: Agent, *, by_threads: bool) -> None:
        """Note a read.

        Raises:
            RaceError: a write that is not known to be past.
            SimulationError: nobody has written, or threads have and no fence came behind.
        """
        found = False
        for write in self.writes:
            if not _overlap(write.region, region):
                continue
            found = True
            if not agent.knows(write.when):
                raise RaceError(
                    f"{self.name}{list(region)}: {agent.name} reads what {write.who} writes, "
                    f"and nothing makes it wait"
                )
            if not by_threads and not write.fenced:
                raise SimulationError(
                    f"{self.name}{list(region)}: {agent.name} reads what {write.who} stored, "
                    f"with no fence between"
                )
        if not found:
            raise SimulationError(
                f"{self.name}{list(region)}: {agent.name} reads what nobody wrote"
            )
        self.reads = [
            read for read in self.reads if not (read.region == region and agent.knows(read.when))
        ]
        self.reads.append(_Read(region, agent.name, agent.now))

    def check_write(self, region: Region, agent: Agent, *, by_threads: bool) -> None:
        """Note a write.

        Raises:
            RaceError: a read or a write that is not known to be past.
        """
        touched: list[tuple[_Write | _Read, str]] = [(one, "writes") for one in self.writes]
        touched += [(one, "reads") for one in self.reads]
        for access, does in touched:
            if _overlap(access.region, region) and not agent.knows(access.when):
                raise RaceError(
                    f"{self.name}{list(region)}: {agent.name} writes over what "
                    f"{access.who} {does}, and nothing makes it wait"
                )
        self.writes = [one for one in self.writes if not _inside(one.region, region)]
        self.reads = [one for one in self.reads if not _inside(one.region, region)]
        fenced = not (by_threads and self.swizzled)
        self.writes.append(_Write(region, agent.name, agent.now, fenced))

    def fence(self, agent: Agent) -> None:
        """Bulk copies and products will see the stores that ``agent`` knows of."""
        for write in self.writes:
            if agent.knows(write.when):
                write.fenced = True


def _overlap(one: Region, other: Region) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def _inside(one: Region, other: Region) -> bool:
    return one[0] == other[0] and other[1] <= one[1] and one[2] <= other[2]


@dataclass(frozen=True)
class View:
    """What a kernel holds of a memory: a slot, some columns, perhaps turned."""

    memory: Memory
    slot: int | None
    start: int
    stop: int
    turned: bool = False

    @property
    def shape(self) -> list[int]:
        data = self.memory.data
        if self.slot is None:
            return [*data.shape[:-1], self.stop - self.start]
        shape = [*data.shape[1:-1], self.stop - self.start]
        return shape[::-1] if self.turned else shape

    @property
    def dtype(self) -> torch.dtype:
        return self.memory.data.dtype

    def index(self, slot: Any) -> View:  # noqa: ANN401 - a number, however a kernel came by it
        slot = int(slot)
        if self.slot is not None or not 0 <= slot < len(self.memory.data):
            raise BoundsError(f"{self.memory.name}: wanted a slot of its own, got {slot}")
        return View(self.memory, slot, self.start, self.stop)

    def slice(self, start: int, length: int, dim: int = 1) -> View:
        if dim != 1 or self.turned or self.start + start + length > self.stop:
            raise BoundsError(
                f"{self.memory.name}: wanted columns of its own, got {start}+{length}"
            )
        return View(self.memory, self._one, self.start + start, self.start + start + length)

    def permute(self, order: tuple[int, int]) -> View:
        if tuple(order) != (1, 0):
            raise SimulationError(f"permute: wanted (1, 0), got {order}")
        return View(self.memory, self._one, self.start, self.stop, not self.turned)

    def load(self, _layout: object = None) -> Tensor:
        """What threads read."""
        return self.read(self.memory.machine.current, by_threads=True).clone()

    def store(self, value: Tensor) -> None:
        """What threads write."""
        self.write(value, self.memory.machine.current, by_threads=True)

    def read(self, agent: Agent, *, by_threads: bool = False) -> Tensor:
        self.memory.check_read((self._one, self.start, self.stop), agent, by_threads=by_threads)
        data = self.memory.data[self._one][..., self.start : self.stop]
        return data.transpose(0, 1) if self.turned else data

    def write(self, value: Tensor, agent: Agent, *, by_threads: bool = False) -> None:
        if list(value.shape) != self.shape or value.dtype != self.dtype or self.turned:
            raise SimulationError(
                f"{self.memory.name}: wanted {self.dtype} {self.shape}, "
                f"got {value.dtype} {list(value.shape)}"
            )
        self.memory.check_write((self._one, self.start, self.stop), agent, by_threads=by_threads)
        self.memory.data[self._one][..., self.start : self.stop] = value

    @property
    def _one(self) -> int:
        if self.slot is not None:
            return self.slot
        if len(self.memory.data) != 1:
            raise SimulationError(f"{self.memory.name}: wanted one of its slots, got all of them")
        return 0
