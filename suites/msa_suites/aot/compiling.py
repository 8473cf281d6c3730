"""Compiling the launches of an implementation in its own process; what is launched never runs.

"Compiles" does not mean "runs". A crash of the compiler takes the process with it, so the caller
asks for one launch at a time.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

import msa_kernels

#: What is counted in the PTX of a kernel.
INSTRUCTIONS = (
    "tcgen05.mma",
    "wgmma.mma_async",
    "mma.sync",
    "cp.async.bulk",
    "ld.global",
    "st.global",
)


class _NoDevice:
    """As much of a driver as compiling needs."""

    def __init__(self, target: object) -> None:
        self._target = target

    def get_current_target(self) -> object:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: object) -> int:
        return 0


class Compiler:
    """Compiles the launches of one implementation for one architecture, each when it is asked for.

    Args:
        spec: a name of the table of implementations, or ``module:object``; it has ``launches``,
            which takes a build and calls every launcher with CPU tensors.
        capability: compute capability times ten.

    Raises:
        ImplementationError: there is no such implementation, or it has no ``launches``.
        ValueError: this process interprets kernels.
    """

    def __init__(self, spec: str, capability: int) -> None:
        self._launches = msa_kernels.launches(spec)
        self._found = msa_kernels.find(spec)
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.runtime.driver import driver
        from triton.runtime.jit import KernelInterface

        if triton.knobs.runtime.interpret:
            raise ValueError("TRITON_INTERPRET: wanted it unset to compile, got it set")
        self._tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
        driver.set_active(_NoDevice(GPUTarget("cuda", capability, 32)))
        self._take: Callable[..., None] = self._ignore

        def taken(kernel: Any, grid: object) -> Callable[..., None]:  # noqa: ANN401
            return lambda *args, **kwargs: self._take(kernel, grid, args, kwargs)

        KernelInterface.__getitem__ = taken

    def identity(self) -> dict[str, object]:
        """Which code this is, and which Triton compiles it."""
        found = msa_kernels.identity(self._found).as_dict()
        return {**found, "triton": version("triton")}

    def names(self, build: Mapping[str, object]) -> dict[str, int]:
        """The kernels that are launched, in order, and which launch each is.

        A second one of a name gets a number, unless it compiles to the same as an earlier one.
        """
        found: dict[str, int] = {}
        known: dict[str, set[object]] = {}
        passed = 0

        def note(
            kernel: Any,  # noqa: ANN401 - Triton's, of any version
            _: object,
            args: tuple[object, ...],
            kwargs: dict[str, object],
        ) -> None:
            nonlocal passed
            plain = kernel.fn.__name__
            variants = known.setdefault(plain, set())
            variant = _variant(kernel, args, kwargs)
            if variant not in variants:
                found[f"{plain}.{len(variants) + 1}" if variants else plain] = passed
                variants.add(variant)
            passed += 1

        self._launch(build, note)
        return found

    def compile(self, build: Mapping[str, object], number: int) -> dict[str, object]:
        """What the compiler makes of the ``number``-th launch.

        Returns:
            ``registers`` a thread, ``spill_bytes`` (of stack a thread, which is where registers
            spill), ``shared_bytes`` a program, ``tensor_memory`` (columns), ``instructions``
            (counts) and ``config`` (constants and options of the launch).
        """
        made: list[dict[str, object]] = []
        passed = 0

        def compile_one(
            kernel: Any,  # noqa: ANN401
            grid: object,
            args: tuple[object, ...],
            kwargs: dict[str, object],
        ) -> None:
            nonlocal passed
            if passed == number:
                made.append(self._described(kernel.warmup(*args, grid=grid, **kwargs), kwargs))
            passed += 1

        self._launch(build, compile_one)
        return made[0]

    def _launch(self, build: Mapping[str, object], take: Callable[..., None]) -> None:
        self._take = take
        try:
            self._launches(**build)
        finally:
            self._take = self._ignore

    @staticmethod
    def _ignore(*_: object) -> None:
        """Nobody asked."""

    def _described(self, kernel: Any, kwargs: Mapping[str, object]) -> dict[str, object]:  # noqa: ANN401
        if isinstance(kernel, list):  # what an autotuner compiles: all its configurations
            raise TypeError("wanted a kernel with one configuration, got one that is autotuned")
        ptx = kernel.asm["ptx"]
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            command = [str(self._tools / "cuobjdump"), "--dump-resource-usage", file.name]
            usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = {name: int(size) for name, size in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}
        counts = {name: len(re.findall(re.escape(name) + r"\b", ptx)) for name in INSTRUCTIONS}
        return {
            "registers": found["REG"],
            "spill_bytes": found["STACK"],
            "shared_bytes": kernel.metadata.shared,
            "tensor_memory": getattr(kernel.metadata, "tmem_size", 0),
            "instructions": {name: count for name, count in counts.items() if count},
            "config": {name: value for name, value in kwargs.items() if _is_plain(value)},
        }


def _variant(
    kernel: Any,  # noqa: ANN401 - Triton's, of any version
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> object:
    """What a launch is compiled for: constants, options, and of the rest what Triton looks at."""
    named = {**dict(zip(kernel.arg_names, args, strict=False)), **kwargs}
    known = {one.name: one for one in kernel.params}
    found: list[object] = []
    for name, value in sorted(named.items()):
        one = known.get(name)
        if one is None or one.is_constexpr:
            found.append((name, repr(value)))
        elif one.do_not_specialize:
            found.append((name, type(value)))
        else:
            found.append((name, _looked_at(value)))
    return tuple(found)


def _looked_at(value: object) -> object:
    """Of an argument: its type, whether it is 1 or a multiple of 16."""
    if isinstance(value, Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    if isinstance(value, int) and not isinstance(value, bool):
        return int, value == 1, value % 16 == 0, value.bit_length() > 31
    return type(value)


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int | float | str)
