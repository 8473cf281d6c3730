"""What a pair of processes showed, as the samples of its block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from msa_harness.blocks import SUITE, Block
from msa_harness.samples import Sample
from msa_harness.turns import Condition

STARTUP = "speed/startup"
FOREIGN = "speed/machine/foreign_load"


@dataclass(frozen=True, slots=True)
class Rows:
    """Makes samples.

    Attributes:
        sides: Measured in the run.
        ran: What really ran on a side.
        repro: Command that repeats a series.
    """

    sides: tuple[str, ...]
    ran: Callable[[str], str]
    repro: Callable[[str], str]

    def timed(
        self,
        name: str,
        block: Block,
        seconds: Mapping[str, Sequence[float]],
        problems: Mapping[str, str],
    ) -> list[Sample]:
        """One series: medians with all calls, or what went wrong where anything did."""
        if not any(problems.values()):
            return [
                self.one(name, block, side, median(seconds[side]), raw=seconds[side])
                for side in self.sides
            ]
        guilty = ", ".join(side for side in self.sides if problems[side])
        return [
            self.one(name, block, side, None, problems[side] or f"not timed: {guilty} failed")
            for side in self.sides
        ]

    def machine(
        self, block: Block, foreign: float | None, conditions: Sequence[Condition]
    ) -> list[Sample]:
        """What the machine was like, the same for all sides.

        Args:
            block: Which pair.
            foreign: Share of the cores that others took; None where the kernel does not say.
            conditions: What else was watched.
        """
        unknown = "" if foreign is not None else "the kernel does not say"
        watched = [Condition(FOREIGN, foreign, "share", unknown), *conditions]
        return [
            self.one(c.series, block, side, c.value, c.detail, unit=c.unit)
            for c in watched
            for side in self.sides
        ]

    def one(
        self,
        name: str,
        block: Block,
        side: str,
        value: float | None,
        detail: str = "",
        raw: Sequence[float] = (),
        unit: str = "s",
    ) -> Sample:
        """A sample of a series on a side."""
        return Sample(
            suite=SUITE,
            series=name,
            subject=side,
            unit=unit,
            item=block.item,
            value=value,
            cluster=block.item,
            detail=detail,
            raw=tuple(raw),
            ran=self.ran(side),
            repro=self.repro(name),
        )
