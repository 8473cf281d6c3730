"""A Gluon kernel on a CPU: its own source, with a machine that notices what hardware forgives.

Gluon has no interpreter. Here the functions of a kernel run as the Python that they are, with the
names of Gluon's language bound to :mod:`language`: partitions are threads of which one runs at a
time, bulk copies and matrix products end when a chooser says so, every barrier has its phases and
every byte of shared and tensor memory knows who touched it. Deadlocks, slots that are overwritten
too early, waits that are missing, elements written twice and addresses out of bounds are errors.

What it cannot see: layouts and instructions (the compiler's), rounding of tensor cores, time.
"""

from __future__ import annotations

import itertools
import random
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from msa_kernels.gluon_ops.simulating.agents import (
    BoundsError,
    Chooser,
    DeadlockError,
    LostError,
    Machine,
    RaceError,
    SimulationError,
)
from msa_kernels.gluon_ops.simulating.language import Language, as_torch

__all__ = [
    "BoundsError",
    "Chooser",
    "DeadlockError",
    "LostError",
    "Machine",
    "RaceError",
    "SimulationError",
    "simulate",
]


def simulate(
    kernel: Any,  # noqa: ANN401 - Triton's
    grid: Sequence[int],
    args: Sequence[object],
    constants: Mapping[str, object],
    *,
    num_warps: int = 4,
    choose: Chooser | None = None,
    replaced: Mapping[str, Callable[..., object]] | None = None,
) -> None:
    """Run every program of a launch, one after the other.

    Args:
        kernel: a function under ``gluon.jit``.
        grid: programs on each of up to three axes.
        args: of the kernel: CPU tensors, descriptors of such, numbers.
        constants: its further arguments, by name.
        num_warps: of the default partition.
        choose: out of n that could go on, the number of the one who does; default: at random, the
            same in every run.
        replaced: functions to take in place of the kernel's own, by name.

    Raises:
        SimulationError: what a real machine would not run, or not always run right.
    """
    choose = choose or random.Random(0).randrange
    shape = [*grid, 1, 1][:3]
    written: dict[int, Tensor] = {}
    for number in itertools.product(*(range(size) for size in shape)):
        machine = Machine(choose)
        language = Language(machine, number, shape, num_warps)
        function = _bound(kernel, language.names, dict(replaced or {}))
        given = [language.argument(one, written) for one in args]
        function(*given, **{name: as_torch(value) for name, value in constants.items()})
        machine.finish()


def _bound(
    function: Any,  # noqa: ANN401
    names: Mapping[str, object],
    replaced: Mapping[str, Callable[..., object]],
) -> Callable[..., None]:
    """The Python function of a kernel or of one of its parts, which sees ``names``."""
    source = replaced.get(function.__name__, function.fn)
    seen: dict[str, object] = {"__builtins__": __builtins__}
    bound = types.FunctionType(
        source.__code__, seen, function.__name__, source.__defaults__, source.__closure__
    )
    bound.__kwdefaults__ = source.__kwdefaults__
    for name in source.__code__.co_names:
        if name in names:
            seen[name] = names[name]
        elif name in source.__globals__:
            known = source.__globals__[name]
            kind = type(known).__name__
            if kind == "GluonJITFunction":
                seen[name] = _bound(known, names, replaced)
            elif kind == "ConstexprFunction":
                seen[name] = lambda *_, **__: None  # they make layouts
            else:
                seen[name] = known
    return bound
