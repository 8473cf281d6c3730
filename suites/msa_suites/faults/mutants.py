"""Mutated implementations by name: ``msa_suites.faults.mutants:msa__fast__scoring__12``.

Asking for one makes the code of this process wrong, for good: for worker processes only. It must be
the first to import ``msa``.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from functools import cache
from types import CodeType, ModuleType

from msa_suites.faults.mutation import Mutant, mutated

#: Says that a mutant was not made; what the gate says then is no verdict on it.
TOO_LATE = "wanted it not imported yet, so that it can be changed"


def implementation_of(mutant: Mutant) -> str:
    """How a worker names it."""
    return f"{__name__}:{mutant.module.replace('.', '__')}__{mutant.number}"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, with its source changed."""

    def __init__(self, module: str, number: int) -> None:
        self._module, self._number = module, number

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin, self._number)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the changed tree."""

    def __init__(self, name: str, path: str, number: int) -> None:
        super().__init__(name, path)
        self._number = number

    def get_code(self, fullname: str) -> CodeType:
        return compile(mutated(fullname, self._number), self.path, "exec")


@cache  # who looks an attribute up may ask for it twice
def __getattr__(name: str) -> ModuleType:
    *parts, number = name.split("__")
    module = ".".join(parts)
    if not number.isdecimal() or not module.startswith("msa."):
        raise AttributeError(name)
    if module in sys.modules:
        raise ImportError(f"{module}: {TOO_LATE}")
    sys.meta_path.insert(0, _Finder(module, int(number)))
    importlib.import_module(module)
    return importlib.import_module("msa.fast")
