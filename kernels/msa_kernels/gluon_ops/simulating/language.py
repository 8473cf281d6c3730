"""Gluon's language on a CPU: what a kernel calls, for a program that is simulated.

Layouts say which thread holds what; here one tensor holds all, so they mean nothing (the compiler
checks them). Elementwise numbers are torch's, products are sums in float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from msa_kernels.gluon_ops.simulating.agents import Agent, Flight, Machine, SimulationError, join
from msa_kernels.gluon_ops.simulating.barriers import Barrier, Barriers
from msa_kernels.gluon_ops.simulating.descriptors import Descriptor
from msa_kernels.gluon_ops.simulating.memory import Memory, View
from msa_kernels.gluon_ops.simulating.pointers import Pointer


def _two(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Any]:
    """Of tensors or numbers; numbers stay numbers of the other's dtype."""

    def of(one: Any, other: Any) -> Any:  # noqa: ANN401
        if not isinstance(one, Tensor) and not isinstance(other, Tensor):
            return operation(torch.tensor(one), torch.tensor(other)).item()
        like = one if isinstance(one, Tensor) else other
        return operation(
            torch.as_tensor(one, dtype=like.dtype) if not isinstance(one, Tensor) else one,
            torch.as_tensor(other, dtype=like.dtype) if not isinstance(other, Tensor) else other,
        )

    return of


def _where(condition: Any, one: Any, other: Any) -> Any:  # noqa: ANN401
    return torch.where(torch.as_tensor(condition), one, other)


def _reduce(x: Tensor, axis: int, fold: Callable[[Tensor], Tensor], least: float) -> Tensor:
    # A NaN is passed over, unless there is nothing else: so do the instructions.
    nan = x.isnan()
    folded = fold(torch.where(nan, least, x))
    return torch.where(nan.all(axis), math.nan, folded)


def _fp4_to_fp(x: Tensor, dtype: torch.dtype, axis: int) -> Tensor:
    """Two E2M1 elements a byte, side by side on the last axis; the low half is the first."""
    if x.dtype != torch.uint8 or axis % x.ndim != x.ndim - 1:
        raise SimulationError(f"fp4_to_fp: wanted uint8 and its last axis, got {x.dtype}, {axis}")
    code = (x.int()[..., None] >> torch.tensor([0, 4])).flatten(-2)
    exponent, half = code >> 1 & 3, (code & 1) / 2
    size = torch.where(exponent == 0, half, torch.ldexp(1 + half, exponent - 1))
    return torch.where(code & 8 == 0, size, -size).to(dtype)


def _identity(x: Any, *_: object, **__: object) -> Any:  # noqa: ANN401
    return x


class Language:
    """The modules that a kernel's names stand for, in one program.

    Args:
        machine: its agents.
        program: its place in the grid.
        grid: programs on each axis.
        warps: of its default partition.
    """

    def __init__(
        self, machine: Machine, program: Sequence[int], grid: Sequence[int], warps: int
    ) -> None:
        self._machine = machine
        self._shared: list[Memory] = []
        self._barriers: list[Barrier] = []
        self._names = 0
        self._loads: dict[int, list[Flight]] = {}
        self._groups: dict[int, list[list[Flight]]] = {}
        self.gl = SimpleNamespace(
            program_id=lambda axis: torch.tensor(program[axis], dtype=torch.int32),
            num_programs=lambda axis: grid[axis],
            num_warps=lambda: warps,
            load=lambda pointer, mask=None, other=None: pointer.load(mask, other),
            store=lambda pointer, value, mask=None: pointer.store(value, mask),
            arange=lambda start, stop, _=None: torch.arange(start, stop, dtype=torch.int32),
            full=lambda shape, value, dtype, _=None: torch.full(shape, value, dtype=dtype),
            zeros_like=torch.zeros_like,
            zeros=lambda shape, dtype, _=None: torch.zeros(shape, dtype=dtype),
            where=_where,
            minimum=_two(torch.minimum),
            maximum=_two(torch.maximum),
            max=lambda x, axis: _reduce(x, axis, lambda y: y.amax(axis), -math.inf),
            sum=lambda x, axis: x.sum(axis, dtype=x.dtype),
            expand_dims=torch.unsqueeze,
            broadcast=torch.broadcast_tensors,
            fp4_to_fp=_fp4_to_fp,
            exp2=torch.exp2,
            log2=torch.log2,
            convert_layout=_identity,
            static_range=range,
            constexpr=object,
            allocate_shared_memory=self._allocate_shared,
            warp_specialize=self._specialize,
            BlockedLayout=_ignore,
            SliceLayout=_ignore,
            DotOperandLayout=_ignore,
            NVMMASharedLayout=SimpleNamespace(get_default_for=_ignore),
            int1=torch.bool,
            uint8=torch.uint8,
            int32=torch.int32,
            int64=torch.int64,
            float16=torch.float16,
            bfloat16=torch.bfloat16,
            float32=torch.float32,
        )
        self.mbarrier = SimpleNamespace(
            MBarrierLayout=_ignore,
            init=lambda barrier, count: barrier.one.start(count),
            expect=self._expect,
            wait=lambda barrier, phase: barrier.one.wait(int(phase)),
            arrive=self._arrive,
        )

    @property
    def names(self) -> dict[str, object]:
        """What the names in a kernel's module are here."""
        return {
            "gl": self.gl,
            "mbarrier": self.mbarrier,
            "bulk_load": self._bulk_load,
            "bulk_gather": self._bulk_gather,
            "scattered_load": self._scattered_load,
            "commit_group": self._commit_group,
            "wait_group": self._wait_group,
            "fence_async_shared": self._fence,
            "allocate_tensor_memory": self._allocate_tensor,
            "TensorMemoryLayout": _ignore,
            "tcgen05_mma": self._product,
            "warpgroup_mma": self._product_of_warps,
        }

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind} {self._names}"

    def _allocate_shared(
        self, dtype: torch.dtype, shape: Sequence[int], _: object = None
    ) -> View | Barriers:
        if dtype == torch.int64:  # which here only barriers are
            name = self._name("barrier")
            count = shape[0] if len(shape) > 1 else 1
            made = [Barrier(f"{name}[{i}]", self._machine) for i in range(count)]
            self._barriers += made
            return Barriers(tuple(made))
        return self._allocate("shared", dtype, shape, swizzled=True)

    def _allocate_tensor(self, dtype: torch.dtype, shape: Sequence[int], _: object = None) -> View:
        return self._allocate("tensor memory", dtype, shape, swizzled=False)

    def _allocate(
        self, kind: str, dtype: torch.dtype, shape: Sequence[int], *, swizzled: bool
    ) -> View:
        slots = list(shape) if len(shape) == 3 else [1, *shape]
        data = torch.full(slots, math.nan).to(dtype)
        memory = Memory(self._name(kind), data, self._machine, swizzled)
        self._shared.append(memory)
        return View(memory, None if len(shape) == 3 else 0, 0, slots[-1])

    def _fence(self) -> None:
        for memory in self._shared:
            memory.fence(self._machine.current)
        for barrier in self._barriers:
            barrier.fence()

    def _expect(self, barrier: Barriers, size: int) -> None:
        barrier.one.expect(self._machine.current, size)
        self._machine.pause()

    def _arrive(self, barrier: Barriers, *, count: int = 1) -> None:
        barrier.one.arrive(self._machine.current, count)
        self._machine.pause()

    def _bulk_load(
        self, source: Descriptor, corner: Sequence[int], barrier: Barriers, into: View
    ) -> None:
        corner = [int(at) for at in corner]

        def land(agent: Agent) -> None:
            box = source.box(corner)
            into.write(box, agent)
            barrier.one.deliver(agent, box.numel() * box.element_size())

        self._machine.launch(f"copy to {into.memory.name}[{into.slot}]", land)

    def _bulk_gather(
        self, source: Descriptor, rows: Tensor, column: int, barrier: Barriers, into: View
    ) -> None:
        def land(agent: Agent) -> None:
            box = source.rows(rows, column)
            into.write(box, agent)
            barrier.one.deliver(agent, box.numel() * box.element_size())

        self._machine.launch(f"gather to {into.memory.name}[{into.slot}]", land)

    def _scattered_load(self, into: View, source: Pointer, mask: Tensor) -> None:
        owner = self._machine.current.number
        found = source.load(mask, 0)

        def land(agent: Agent) -> None:
            into.write(found, agent, by_threads=True)

        flight = self._machine.launch(f"loads to {into.memory.name}[{into.slot}]", land)
        self._loads.setdefault(owner, []).append(flight)

    def _commit_group(self) -> None:
        owner = self._machine.current.number
        self._groups.setdefault(owner, []).append(self._loads.pop(owner, []))

    def _wait_group(self, left: int) -> None:
        agent = self._machine.current
        groups = self._groups.setdefault(agent.number, [])
        due = [one for group in groups[: len(groups) - left] for one in group]
        self._machine.pause(lambda: all(one.done for one in due), "its loads")
        for one in due:
            join(agent.clock, one.agent.release())
        del groups[: len(groups) - left]

    def _product(
        self,
        one: View,
        other: View,
        into: View,
        *,
        use_acc: Any = True,  # noqa: ANN401
        mbarriers: Sequence[Barriers],
    ) -> None:
        keeps = bool(use_acc)

        def land(agent: Agent) -> None:
            product = one.read(agent).float() @ other.read(agent).float()
            if keeps:
                product = product + into.read(agent)
            into.write(product, agent)
            for barrier in mbarriers:
                barrier.one.signal(agent)

        self._machine.launch(f"product into {into.memory.name}", land, in_order=True)

    def _product_of_warps(
        self,
        one: View | Tensor,
        other: View,
        sums: Tensor,
        *,
        use_acc: Any = True,  # noqa: ANN401
    ) -> Tensor:
        agent = self._machine.current
        left = one if isinstance(one, Tensor) else one.read(agent)
        product = left.float() @ other.read(agent).float()
        return product + sums if bool(use_acc) else product

    def _specialize(
        self,
        bodies: Sequence[tuple[Callable[..., None], tuple[object, ...]]],
        warps: Sequence[int],
        _: Sequence[int],
    ) -> None:
        if len(bodies) != len(warps) + 1:
            raise SimulationError(f"warp_specialize: wanted {len(bodies) - 1} warp counts")
        self._machine.specialize(
            [(body.__name__, functools.partial(body, *given)) for body, given in bodies]
        )

    def argument(self, given: object, written: dict[int, Tensor]) -> object:
        """What a kernel gets of what a launcher passes."""
        if isinstance(given, Tensor):
            storage = given.untyped_storage()
            size = storage.nbytes() // given.element_size()
            key = storage.data_ptr()
            flags = written.setdefault(key, torch.zeros(size, dtype=torch.bool))
            return Pointer(given, flags, given.storage_offset())
        if hasattr(given, "block_shape"):
            return Descriptor(given)
        return given


def _ignore(*_: object, **__: object) -> None:
    return None


def as_torch(value: object) -> object:
    """A constant of a kernel: Gluon's dtypes are torch's here."""
    known = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8e4nv": torch.float8_e4m3fn}
    return known.get(str(getattr(value, "name", "")), value)
