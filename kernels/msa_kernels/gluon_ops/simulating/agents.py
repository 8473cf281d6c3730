"""Who does something in a program, in which order, and what is known to have happened before.

A program has a thread for each of its partitions, of which one runs at a time, and *flights*: bulk
copies and matrix products that go on by themselves until they signal a barrier. Who goes on next is
asked of a chooser, so that a test can try every order.

"Before" is not the order in which things happened to run but what synchronisation enforces: every
agent carries a vector clock (Mattern 1989), which a barrier hands on. Two accesses of which neither
is before the other are a race whether or not this run had them in a harmful order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Clock = dict[int, int]
#: Out of so many who could go on, the one who does.
Chooser = Callable[[int], int]


class SimulationError(RuntimeError):
    """A program that a real machine would not run, or not always run right."""


class DeadlockError(SimulationError):
    """Every partition that is left waits for something that nobody will do."""


class RaceError(SimulationError):
    """Two accesses to the same memory, one of them a write, that nothing keeps in order."""


class LostError(SimulationError):
    """A copy that nobody waited for, or an element that is written twice."""


class BoundsError(SimulationError):
    """An address outside of its tensor."""


class _AbandonedError(BaseException):
    """Ends the thread of a partition whose program has failed elsewhere."""


def join(clock: Clock, other: Clock) -> None:
    """``clock`` learns all that ``other`` knows."""
    for number, time in other.items():
        if clock.get(number, 0) < time:
            clock[number] = time


@dataclass
class Agent:
    """A partition or a flight.

    Attributes:
        name: for messages.
        number: in the clocks.
        clock: what it knows to be past, itself included.
    """

    name: str
    number: int
    clock: Clock

    def __post_init__(self) -> None:
        self.clock[self.number] = 1

    def release(self) -> Clock:
        """What is past from here on for whoever hears of it."""
        told = dict(self.clock)
        self.clock[self.number] += 1
        return told

    @property
    def now(self) -> tuple[int, int]:
        """This agent and its time, which stand beside each of its accesses."""
        return self.number, self.clock[self.number]

    def knows(self, when: tuple[int, int]) -> bool:
        """Whether something is past for this agent."""
        return self.clock.get(when[0], 0) >= when[1]


@dataclass
class _Partition:
    agent: Agent
    thread: threading.Thread | None = None
    turn: threading.Event = field(default_factory=threading.Event)
    may_go: Callable[[], bool] = lambda: True
    what: str = ""
    done: bool = False
    error: BaseException | None = None


@dataclass
class Flight:
    """Something under way: it acts once, when its turn comes and what is ahead of it is done."""

    agent: Agent
    act: Callable[[Agent], None]
    ahead: Flight | None = None
    done: bool = False


class Machine:
    """The agents of one program.

    Args:
        choose: picks who goes on next.
    """

    def __init__(self, choose: Chooser) -> None:
        self._choose = choose
        self._numbers = 0
        self._flights: list[Flight] = []
        self._landed: list[Flight] = []
        self._partitions: list[_Partition] = []
        self._back = threading.Event()
        self._abandoned = False
        self._running: _Partition | None = None
        self._main = self.agent("the program", {})
        #: The last product that each agent has issued: those of one agent end in order.
        self._last: dict[int, Flight] = {}

    def agent(self, name: str, clock: Clock) -> Agent:
        self._numbers += 1
        return Agent(name, self._numbers, dict(clock))

    @property
    def current(self) -> Agent:
        """Who runs now."""
        return self._running.agent if self._running else self._main

    def launch(self, name: str, act: Callable[[Agent], None], *, in_order: bool = False) -> Flight:
        """Let something go on by itself; ``in_order`` behind the last one of the current agent."""
        owner = self.current
        flight = Flight(self.agent(f"{name} of {owner.name}", owner.release()), act)
        if in_order:
            flight.ahead = self._last.get(owner.number)
            self._last[owner.number] = flight
        self._flights.append(flight)
        self.pause()
        return flight

    def pause(self, may_go: Callable[[], bool] = lambda: True, what: str = "") -> None:
        """Let others go on, until it is this agent's turn again and ``may_go``."""
        one = self._running
        if one is None:
            self._drain(may_go, what)
            return
        one.may_go, one.what = may_go, what
        self._running = None
        self._back.set()
        one.turn.wait()
        one.turn.clear()
        if self._abandoned:
            raise _AbandonedError
        self._running = one

    def _drain(self, may_go: Callable[[], bool], what: str) -> None:
        """The program waits where nobody else runs: only flights can help."""
        while not may_go():
            ready = self._ready_flights()
            if not ready:
                raise DeadlockError(f"{self._main.name} waits for {what}, which nobody will do")
            self._land(ready[self._choose(len(ready))])

    def specialize(self, bodies: Sequence[tuple[str, Callable[[], None]]]) -> None:
        """Run bodies beside each other until all have ended."""
        if self._running is not None:
            raise SimulationError("warp_specialize: wanted one, got one inside of another")
        self._partitions = []
        for name, body in bodies:
            one = _Partition(self.agent(name, self._main.clock))
            one.thread = threading.Thread(target=self._body, args=(one, body), daemon=True)
            self._partitions.append(one)
        self._main.release()
        for one in self._partitions:
            assert one.thread is not None
            one.thread.start()
        try:
            self._schedule()
        finally:
            self._abandoned = True
            for one in self._partitions:
                one.turn.set()
            for one in self._partitions:
                assert one.thread is not None
                one.thread.join()
            self._abandoned = False
        for one in self._partitions:
            join(self._main.clock, one.agent.clock)
        self._partitions = []

    def _body(self, one: _Partition, body: Callable[[], None]) -> None:
        one.turn.wait()
        one.turn.clear()
        if self._abandoned:
            return
        self._running = one
        try:
            body()
        except _AbandonedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again by the scheduler
            one.error = error
        one.done = True
        self._running = None
        self._back.set()

    def _schedule(self) -> None:
        while True:
            left = [one for one in self._partitions if not one.done]
            if not left:
                return
            able = [one for one in left if one.may_go()]
            flights = self._ready_flights()
            if not able and not flights:
                raise DeadlockError(
                    "; ".join(f"{one.agent.name} waits for {one.what}" for one in left)
                )
            chosen = self._choose(len(able) + len(flights))
            if chosen >= len(able):
                self._land(flights[chosen - len(able)])
                continue
            one = able[chosen]
            self._back.clear()
            one.turn.set()
            self._back.wait()
            if one.error is not None:
                raise one.error

    def _ready_flights(self) -> list[Flight]:
        return [one for one in self._flights if one.ahead is None or one.ahead.done]

    def _land(self, flight: Flight) -> None:
        self._flights.remove(flight)
        if flight.ahead is not None:
            join(flight.agent.clock, flight.ahead.agent.clock)
        flight.act(flight.agent)
        flight.done = True
        self._landed.append(flight)

    def finish(self) -> None:
        """The end of the program: nothing may be under way that nobody waited for.

        Raises:
            LostError: a flight that nobody knows to have ended.
        """
        while ready := self._ready_flights():
            self._land(ready[0])
        for flight in self._landed:
            if not self._main.knows((flight.agent.number, 1)):
                raise LostError(f"{flight.agent.name}: nobody waited for its end")
