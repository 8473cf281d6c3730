"""Implementations of the operations of MSA, chosen by name and never by accident.

An implementation is named by this table, by an entry point of the group
``msa_bench.implementations``, or as ``module``, ``module:object`` or ``path/to/file.py:object``.
What is asked for runs or says why it cannot; nothing falls back.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from msa_kernels.contract import OPERATIONS, Capabilities
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

#: Name -> where the module or the object stands. Imported only when it is asked for.
IMPLEMENTATIONS: dict[str, str] = {
    "reference": "msa.reference",
    "torch": "msa.fast",
    "triton": "msa_kernels.triton_ops",
    "dense_sdpa": "msa_kernels.adapters.dense_sdpa",
    "transformers": "msa_kernels.adapters.transformers_m3",
    "flex_attention": "msa_kernels.adapters.flex_attention",
    "fmha_sm100": "msa_kernels.adapters.fmha_sm100",
    "hub": "msa_kernels.adapters.hub_msa",
    "flashinfer": "msa_kernels.adapters.flashinfer_msa",
    "vllm": "msa_kernels.adapters.vllm_msa",
}


#: Entry points by which an installed package names its own.
GROUP = "msa_bench.implementations"


class ImplementationError(ValueError):
    """An implementation that is unknown, broken, or cannot run here."""


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
    for name, where in {**_installed(), **IMPLEMENTATIONS}.items():
        try:
            rows.append(Description(name, where, operations(load(name)), ""))
        except ImplementationError as error:
            rows.append(Description(name, where, (), str(error)))
    return tuple(rows)


def _installed() -> dict[str, str]:
    """Names that installed packages have entered, and where they point; ours cannot be taken."""
    found = importlib.metadata.entry_points(group=GROUP)
    return {one.name: one.value for one in found if one.name not in IMPLEMENTATIONS}


def _shown(spec: object) -> str:
    return repr(spec) if isinstance(spec, str) else type(spec).__name__


def find(spec: str) -> Any:  # noqa: ANN401  # what outsiders write has no common type
    """What ``spec`` names, whether it can run here or not.

    Raises:
        ImplementationError: no such name, module or object.
    """
    place = IMPLEMENTATIONS.get(spec) or _installed().get(spec)
    if place is None and not any(sign in spec for sign in ".:/"):
        names = {**IMPLEMENTATIONS, **_installed()}
        near = difflib.get_close_matches(spec, names, n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        try:
            known = importlib.util.find_spec(spec) is not None
        except (ImportError, ValueError):
            known = False
        if not known:
            raise ImplementationError(
                f"implementation: wanted one of {', '.join(names)}, a module or "
                f"module:object, got {spec!r}{hint}"
            )
    module_name, _, path = (place or spec).partition(":")
    found: object = _module(spec, module_name)
    for part in path.split(".") if path else ():
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ImplementationError(
                f"implementation {spec!r}: wanted an attribute of {module_name}, "
                f"got {part!r}, which it has not{hint}"
            )
        found = getattr(found, part)
    return found


def _module(spec: str, name: str) -> ModuleType:
    try:
        if name.endswith(".py"):
            return _module_of_file(Path(name))
        return importlib.import_module(name)
    except Exception as error:
        # Whatever a foreign module raises while it loads is the reason, in its own words.
        missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        advice = "; a file can be named as path/to/file.py:object" if missing else ""
        raise ImplementationError(
            f"implementation {spec!r}: cannot import {name}: {type(error).__name__}: {error}"
            f"{advice}"
        ) from error


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"wanted a Python file, got {path}, which does not exist")
    name = f"msa_implementation_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"wanted a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles of the module look it up here.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
