"""Barriers in shared memory: how the agents of a program hear of each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from msa_kernels.gluon_ops.simulating.agents import (
    Agent,
    BoundsError,
    Clock,
    Machine,
    SimulationError,
    join,
)


@dataclass
class Barrier:
    """An mbarrier: phases that end when all have arrived and all announced bytes have come."""

    name: str
    machine: Machine
    count: int = 0
    fenced: bool = False
    pending: int = 0
    bytes_due: int = 0
    phase: int = 0
    told: Clock = field(default_factory=dict)
    heard: Clock = field(default_factory=dict)

    def start(self, count: int) -> None:
        self.count = self.pending = count

    def _end(self, told: Clock) -> None:
        join(self.told, told)
        if self.pending == 0 and self.bytes_due == 0:
            join(self.heard, self.told)
            self.phase += 1
            self.pending = self.count

    def fence(self) -> None:
        """Copies and products will see that it is initialised."""
        self.fenced = self.count > 0

    def signal(self, agent: Agent) -> None:
        """A product has ended.

        Raises:
            SimulationError: no fence came behind the initialisation.
        """
        self._require_fence()
        self.arrive(agent)

    def arrive(self, agent: Agent, count: int = 1) -> None:
        self._require_start()
        if count > self.pending:
            raise SimulationError(f"{self.name}: {agent.name} arrives, and all have already")
        self.pending -= count
        self._end(agent.release())

    def expect(self, agent: Agent, size: int) -> None:
        self._require_start()
        self.bytes_due += size
        self.arrive(agent)

    def deliver(self, agent: Agent, size: int) -> None:
        self._require_fence()
        if size > self.bytes_due:
            raise SimulationError(
                f"{self.name}: wanted {self.bytes_due} bytes more, {agent.name} brings {size}"
            )
        self.bytes_due -= size
        self._end(agent.release())

    def wait(self, parity: int) -> None:
        self._require_start()

        def over() -> bool:
            return self.phase & 1 != parity

        self.machine.pause(over, f"phase {parity} of {self.name}")
        join(self.machine.current.clock, self.heard)

    def _require_fence(self) -> None:
        self._require_start()
        if not self.fenced:
            raise SimulationError(
                f"{self.name}: wanted a fence behind its initialisation, got none"
            )

    def _require_start(self) -> None:
        if not self.count:
            raise SimulationError(f"{self.name}: wanted it initialised, got it as it was found")


@dataclass(frozen=True)
class Barriers:
    """Barriers in shared memory: one of them, or some with numbers."""

    of: tuple[Barrier, ...]

    def index(self, number: Any) -> Barriers:  # noqa: ANN401
        number = int(number)
        if not 0 <= number < len(self.of):
            raise BoundsError(f"{self.of[0].name}: wanted one of {len(self.of)}, got {number}")
        return Barriers((self.of[number],))

    @property
    def one(self) -> Barrier:
        if len(self.of) != 1:
            raise SimulationError(f"{self.of[0].name}: wanted one of them, got all")
        return self.of[0]
