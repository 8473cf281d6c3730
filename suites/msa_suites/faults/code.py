"""The code of a subject in its own process, where a fault can replace a function of it."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Environment variable: a folder where the first call of a replaced function leaves a file with
#: the fault's name.
MARKS = "MSA_BENCH_FAULT_MARKS"
_PACKAGES = ("msa", "msa_kernels", "msa_suites")


class AnchorError(AttributeError):
    """The code has not got what a fault replaces: the fault no longer applies."""


class Code:
    """Replaces functions wherever the subject's modules have bound them.

    Args:
        mark: a file that the first call of a replaced function makes; None for none.
    """

    def __init__(self, mark: Path | None = None) -> None:
        self._mark = mark

    def wrap(
        self, where: str, make: Callable[[Any], Callable[..., Any]], *, within: str = ""
    ) -> None:
        """Replace a function.

        Args:
            where: ``module.function`` or ``module.Class.method``.
            make: the right function -> the wrong one.
            within: only what this module has bound; empty: every module of the subject.

        Raises:
            AnchorError: there is no such function.
        """
        owner, name = _find(where)
        right = vars(owner).get(name, getattr(owner, name))
        if isinstance(right, classmethod):
            right = getattr(owner, name)  # with its class: what replaces it is given the rest
            setattr(owner, name, staticmethod(self._marking(make(right), right)))
            return
        wrong = self._marking(make(right), right)
        if isinstance(owner, type):
            setattr(owner, name, wrong)
            return
        bound = 0
        for module_name, module in list(sys.modules.items()):
            mine = module_name.partition(".")[0] in _PACKAGES
            if not mine or (within and module_name != within):
                continue
            for key, value in list(vars(module).items()):
                if value is right:
                    setattr(module, key, wrong)
                    bound += 1
        if not bound:
            raise AnchorError(f"fault: wanted {where} bound in {within or 'a module'}, got nowhere")

    def _marking(self, wrong: Callable[..., Any], right: Callable[..., Any]) -> Callable[..., Any]:
        """``wrong``, which leaves the mark when it is called."""

        @functools.wraps(right)
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any function of the subject
            if self._mark is not None:
                self._mark.touch()
            return wrong(*args, **kwargs)

        return call


def _find(where: str) -> tuple[Any, str]:
    """Module or class, and the attribute's name."""
    parts = where.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:-1]:
            owner = getattr(owner, part, None)
        if owner is not None and hasattr(owner, parts[-1]):
            return owner, parts[-1]
        break
    raise AnchorError(f"fault: wanted {where} in the code, got none")
