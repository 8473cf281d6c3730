"""The table of faults: what is wrong, and which gates must say so."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from msa_suites.faults.code import Code

#: What a function of the subject is given and gives: anything.
Given: TypeAlias = Any

#: Modules whose functions with ``@fault`` make up the table.
CATALOGUE = (
    "selection",
    "index_branch",
    "masking",
    "layout",
    "cache",
    "numbers",
    "backward",
    "index_loss",
    "retrofit_index",
    "manners",
    "settings",
    "speed",
    "harness",
)
CLASSES = (
    "selection",
    "masking",
    "layout",
    "cache",
    "numbers",
    "backward",
    "training",
    "speed",
    "memory",
    "cheat",
    "harness",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: of its function, with dashes.
        kind: one of ``CLASSES``.
        gates: which must catch it: ``suite``, or ``suite:what`` for the case, task, check or series
            of it that is enough; the first is the cheapest.
        inject: makes the code wrong.
        seen: where it happened, or empty.
        needs: ``cpu`` or ``cuda``.
        cause: words with which the gate's report must name it; empty where no report could.
    """

    name: str
    kind: str
    gates: tuple[str, ...]
    inject: Callable[[Code], None]
    seen: str = ""
    needs: str = "cpu"
    cause: str = ""

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (self.inject.__doc__ or "").strip().partition("\n")[0]


_TABLE: dict[str, Fault] = {}


def fault(
    kind: str, *gates: str, seen: str = "", needs: str = "cpu", cause: str = ""
) -> Callable[[Callable[[Code], None]], Callable[[Code], None]]:
    """Enter a function into the table; see :class:`Fault`.

    Raises:
        ValueError: no such class, no gate, or a name that is taken.
    """
    if kind not in CLASSES or not gates:
        raise ValueError(f"fault: wanted a class of {', '.join(CLASSES)} and gates, got {kind!r}")

    def enter(inject: Callable[[Code], None]) -> Callable[[Code], None]:
        name = inject.__name__.replace("_", "-")
        if name in _TABLE:
            raise ValueError(f"fault: wanted a new name, got {name!r} twice")
        _TABLE[name] = Fault(name, kind, gates, inject, seen, needs, cause)
        return inject

    return enter


def faults() -> dict[str, Fault]:
    """Every fault by name, in the order of the catalogue."""
    for module in CATALOGUE:
        importlib.import_module(f"msa_suites.faults.{module}")
    return dict(_TABLE)


def wrapping(where: str, within: str = "") -> Callable[..., Callable[[Code], None]]:
    """``inject`` functions that replace one function: decorate ``(right, *args, **kwargs)``.

    The decorated function stands for the wrong one; its docstring is the fault's.
    """

    def make(wrong: Callable[..., Any]) -> Callable[[Code], None]:
        def inject(code: Code) -> None:
            code.wrap(
                where,
                lambda right: lambda *args, **kwargs: wrong(right, *args, **kwargs),
                within=within,
            )

        inject.__name__, inject.__doc__ = wrong.__name__, wrong.__doc__
        return inject

    return make
