"""Implementations of the operations of MSA, chosen by name and never by accident.

An implementation is named by this table, by an entry point of the group
``msa_bench.implementations``, or as ``module``, ``module:object`` or ``path/to/file.py:object``.
What is asked for runs or says why it cannot; nothing falls back.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from msa_kernels.contract import OPERATIONS, Capabilities
from msa_kernels.finding import GROUP, IMPLEMENTATIONS, ImplementationError, find, installed
from msa_kernels.identity import Identity, identity_of

__all__ = [
    "GROUP",
    "IMPLEMENTATIONS",
    "OPERATIONS",
    "Capabilities",
    "Description",
    "Identity",
    "ImplementationError",
    "capabilities",
    "card",
    "describe",
    "find",
    "identity",
    "launches",
    "load",
    "operations",
]


class _Bare:
    """A callable as an implementation whose only operation is ``attend``."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.attend = function
        # Its own limits, or those that stand beside it in its module.
        module = sys.modules.get(getattr(function, "__module__", ""))
        beside = getattr(module, "CAPABILITIES", {})
        self.CAPABILITIES: Mapping[str, object] = getattr(function, "CAPABILITIES", beside)
        self.wrapped = function


@dataclass(frozen=True, slots=True)
class Description:
    """One row of ``msa-bench list implementations``.

    Attributes:
        name: name in the table.
        where: module of the implementation.
        operations: what it offers; empty where it cannot run.
        unavailable: why it cannot run here, "" where it can.
    """

    name: str
    where: str
    operations: tuple[str, ...]
    unavailable: str


def load(spec: str | object) -> Any:  # noqa: ANN401  # what outsiders write has no common type
    """The implementation that ``spec`` names: an object with some of :data:`OPERATIONS`.

    Args:
        spec: a name of :data:`IMPLEMENTATIONS` or of an entry point, ``module``, ``module:object``,
            ``path/to/file.py:object``, or an implementation itself. A class is called without
            arguments; a callable without operations becomes ``attend``.

    Raises:
        ImplementationError: no such name (near matches are listed), no such module or object,
            nothing in it to test, or it says that it cannot run here.
    """
    found = find(spec) if isinstance(spec, str) else spec
    if inspect.isclass(found):
        found = found()
    # Asked first: what lacks a library may have no operation without it.
    why = getattr(found, "unavailable", None)
    reason = why() if callable(why) else None
    if reason:
        raise ImplementationError(f"implementation {_shown(spec)} cannot run here: {reason}")
    if not operations(found):
        if not callable(found):
            raise ImplementationError(
                f"implementation {_shown(spec)}: wanted a callable or at least one of "
                f"{', '.join(OPERATIONS)}, got {type(found).__name__} with none of them"
            )
        found = _Bare(found)
    return found


def launches(spec: str) -> Callable[..., None]:
    """The ``launches`` of an implementation: a function that calls each of its launchers once.

    Raises:
        ImplementationError: no such implementation, or it has none.
    """
    found = find(spec)
    function = getattr(found, "launches", None)
    if not callable(function):
        why = getattr(found, "unavailable", lambda: None)()
        raise ImplementationError(
            f"implementation {spec!r}: wanted one with a function `launches`, got none"
            + (f": {why}" if why else "")
        )
    return cast("Callable[..., None]", function)


def operations(implementation: object) -> tuple[str, ...]:
    """The operations that an implementation has, in the order of :data:`OPERATIONS`."""
    return tuple(name for name in OPERATIONS if callable(getattr(implementation, name, None)))


def capabilities(implementation: object) -> Capabilities:
    """The capability record of an implementation.

    Raises:
        ImplementationError: its ``CAPABILITIES`` cannot be read; the message names the key.
    """
    record = getattr(implementation, "CAPABILITIES", {})
    if not isinstance(record, Mapping):
        raise ImplementationError(f"CAPABILITIES: wanted a mapping, got {record!r}")
    try:
        return Capabilities.parse(record, operations(implementation))
    except (TypeError, ValueError) as error:
        raise ImplementationError(str(error)) from error


def identity(implementation: object) -> Identity:
    """Which code an implementation is: distribution, version, file and hash."""
    return identity_of(getattr(implementation, "wrapped", implementation))


def card(spec: str) -> dict[str, object]:
    """Operations, capabilities and identity of an implementation as plain data.

    What a judge asks of a subject in another process: everything in it is a str, a bool, a number,
    a list or a dict.
    """
    implementation = load(spec)
    return {
        "operations": list(operations(implementation)),
        "capabilities": capabilities(implementation).as_dict(),
        "identity": identity(implementation).as_dict(),
    }


def describe() -> tuple[Description, ...]:
    """Every implementation of the table, and why one cannot run here."""
    rows = []
    for name, where in {**installed(), **IMPLEMENTATIONS}.items():
        try:
            rows.append(Description(name, where, operations(load(name)), ""))
        except ImplementationError as error:
            rows.append(Description(name, where, (), str(error)))
    return tuple(rows)


def _shown(spec: object) -> str:
    return repr(spec) if isinstance(spec, str) else type(spec).__name__
