"""Axes of a chart: from values to pixels, and where the ticks go."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MAX_TICKS = 7
_MAX_GIVEN = 10


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        label: what it measures.
        base: 0 for a linear scale, else the base of a logarithmic one.
        ticks: where they go; chosen where none or too many are given.
        show: the text of a tick.
        include: values that the axis must reach, and does not pass.
    """

    label: str
    base: int = 0
    ticks: tuple[float, ...] = ()
    show: Callable[[float], str] = lambda value: f"{value:.4g}"
    include: tuple[float, ...] = ()


class Scale:
    """Maps the values of one axis to pixels."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, stop: float) -> None:
        reach = [v for v in (*values, *axis.ticks, *axis.include) if math.isfinite(v)]
        if axis.base:
            reach = [v for v in reach if v > 0]
        if not reach:
            reach = [1.0]
        self.axis, self._start, self._stop = axis, start, stop
        low, high = self._to(min(reach)), self._to(max(reach))
        pad = 0.04 * (high - low) or 0.5
        # A bound the caller asked for is kept exact: recall does not go past 1.
        fixed = {self._to(v) for v in axis.include if v in reach}
        self._low = low if low in fixed else low - pad
        self._high = high if high in fixed else high + pad
        if self._high <= self._low:
            self._high = self._low + 1.0

    def _to(self, value: float) -> float:
        return math.log(value, self.axis.base) if self.axis.base else value

    def __call__(self, value: float) -> float:
        part = (self._to(value) - self._low) / (self._high - self._low)
        return self._start + part * (self._stop - self._start)

    def ticks(self) -> list[float]:
        """Return the tick values that lie on the axis."""
        given = self.axis.ticks if len(self.axis.ticks) <= _MAX_GIVEN else ()
        ticks = list(given) or (self._log_ticks() if self.axis.base else self._linear_ticks())
        slack = 1e-9 * (self._high - self._low)
        return [t for t in ticks if self._low - slack <= self._to(t) <= self._high + slack]

    def _linear_ticks(self) -> list[float]:
        rough = (self._high - self._low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
        first = math.ceil(self._low / step)
        return [i * step for i in range(first, math.floor(self._high / step) + 1)]

    def _log_ticks(self) -> list[float]:
        base = self.axis.base
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        inside = [p for p in powers if self._low <= p <= self._high]
        if base == 10 and len(inside) < 3:
            return [m * 10.0**p for p in powers for m in (1, 2, 5)]
        step = -(-len(inside) // _MAX_TICKS) or 1
        return [float(base) ** p for p in inside[::step]]
