"""Inputs inside a worker: several sets, varied before each timed call, guarded against writes.

Every turn reads the same buffers with the contents of another set, and every call of it finds some
tensors multiplied by a new factor: a result remembered by address, by object or by content is then
stale, and the judge, who is told which contents were used, sees it. Two checked calls in succession
never have the same set. Imports torch and the standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from msa_harness.guard import check_bytes, check_layouts, layouts, storages
from msa_harness.protocol import Tree, moved, tensors_in

# Half an octave around one: the contents never repeat, magnitudes stay alike.
_LOWEST, _HIGHEST = 0.8, 1.25
# Powers of two round nothing, in any dtype, as long as they make nothing small.
_SHIFTS = 8


@dataclass(frozen=True, slots=True)
class Fresh:
    """The inputs of one call, and how the judge rebuilds them.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        index: Which set they are.
        scale: What the varied tensors of the set were multiplied by.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    index: int
    scale: float


@dataclass(frozen=True, slots=True)
class _Buffer:
    """One storage that calls read, and one of a set that its contents come from.

    Attributes:
        target: Bytes that are written.
        source: Bytes that they come from.
        varied: Tensors within the two that are multiplied on the way.
        shifted: Those of them that are multiplied by a power of two.
    """

    target: torch.Tensor
    source: torch.Tensor
    varied: list[tuple[torch.Tensor, torch.Tensor]]
    shifted: list[tuple[torch.Tensor, torch.Tensor]]

    def pairs(
        self, factors: tuple[float, float]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        """Target, source and factor of what is multiplied."""
        for pairs, factor in zip((self.varied, self.shifted), factors, strict=True):
            for target, source in pairs:
                yield target, source, factor

    @property
    def filled(self) -> bool:
        """Whether a varied tensor is all there is in it."""
        return any(
            target.is_contiguous() and target.nbytes == self.target.nbytes
            for target, _ in (*self.varied, *self.shifted)
        )

    def expected(self, factors: tuple[float, float]) -> torch.Tensor:
        """Bytes that `target` must have after a multiplication by `factors`."""
        if not self.varied and not self.shifted:
            return self.source
        whole = self.source.clone()
        for _, source, factor in self.pairs(factors):
            torch.mul(source, factor, out=_within(whole, source))
        return whole


class InputSets:
    """Sets of arguments of one shape, handed out in turn through one set of buffers."""

    def __init__(
        self,
        sets: object,
        device: str,
        vary: Sequence[str],
        seed: int,
        *,
        shift: Sequence[str] = (),
    ) -> None:
        """Take `[{"args": [...], "kwargs": {...}}, ...]`, and names as `client.Worker.put`.

        Raises:
            ValueError: No set, sets of different shapes, or a name to vary that is not there.
        """
        if not isinstance(sets, list) or not sets:
            raise ValueError(f"inputs: wanted a list of at least one set, got {sets!r:.80}")
        self._sets = [moved(one, torch.device(device)) for one in sets]
        self._tensors = _laid_out_like(tensors_in(self._sets[0]))
        self._working = []
        for index, one in enumerate(self._sets):
            _same_shape(self._sets[0], one, index)
            self._working.append(_with_tensors(one, iter(self._tensors)))
        self._vary = [self._named(name) for name in vary]
        self._shift = [self._named(name) for name in shift]
        self._buffers = [
            self._paired(working, one)
            for working, one in zip(self._working, self._sets, strict=True)
        ]
        self._layouts = layouts(self._tensors)
        self._random = random.Random(seed)
        self._index, self._checked = -1, -1
        self._factors = (1.0, 1.0)

    def __len__(self) -> int:
        return len(self._sets)

    def turn(self, *, checked: bool = False) -> None:
        """Put the next set into the buffers.

        Args:
            checked: It will be checked, so it is not the one that was checked last.
        """
        self._index = (self._index + 1) % len(self)
        if checked and self._index == self._checked:
            self._index = (self._index + 1) % len(self)
        if checked:
            self._checked = self._index
        for buffer in self._buffers[self._index]:
            if not buffer.filled:
                buffer.target.copy_(buffer.source)

    def any_of(self, count: int) -> int:
        """One of ``count`` calls, drawn."""
        return self._random.randrange(count)

    def fresh(self) -> Fresh:
        """Inputs of the next call of the turn."""
        scale = self._random.uniform(_LOWEST, _HIGHEST) if self._vary else 1.0
        self._factors = (scale, 2.0 ** self._random.randint(0, _SHIFTS))
        for buffer in self._buffers[self._index]:
            for target, source, factor in buffer.pairs(self._factors):
                torch.mul(source, factor, out=target)
        working = self._working[self._index]
        return Fresh(working["args"], working["kwargs"], self._index, scale)

    def check(self) -> None:
        """Raise where a call of this turn has written into its inputs.

        Raises:
            InputMutatedError: An input's contents, shape or strides changed.
        """
        check_layouts(self._tensors, self._layouts)
        for index, buffer in enumerate(self._buffers[self._index]):
            check_bytes(index, buffer.expected(self._factors), buffer.target)

    def _paired(self, working: Tree, one: Tree) -> list[_Buffer]:
        """What is written before a call, and from where."""
        pairs = list(zip(tensors_in(working), tensors_in(one), strict=True))
        sides = (storages(list(side)) for side in zip(*pairs, strict=True))

        def among(target: torch.Tensor, named: list[torch.Tensor]) -> list[Any]:
            return [
                pair
                for pair in pairs
                if pair[0].untyped_storage().data_ptr() == target.data_ptr()
                and any(pair[0] is tensor for tensor in named)
            ]

        return [
            _Buffer(target, source, among(target, self._vary), among(target, self._shift))
            for target, source in zip(*sides, strict=True)
        ]

    def _named(self, name: str) -> torch.Tensor:
        """The working tensor at a position ("0") or under a keyword ("q")."""
        first = self._working[0]
        where = first["kwargs"].get(name)
        if name.isdecimal() and int(name) < len(first["args"]):
            where = first["args"][int(name)]
        if not isinstance(where, torch.Tensor) or not where.is_floating_point():
            valid = [str(i) for i in range(len(first["args"]))] + list(first["kwargs"])
            raise ValueError(f"vary: wanted a floating tensor among {valid}, got {name!r}")
        return where


def _laid_out_like(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors without contents that share storages as the given ones do."""
    own = {view.data_ptr(): torch.empty_like(view) for view in storages(tensors)}
    return [_within(own[tensor.untyped_storage().data_ptr()], tensor) for tensor in tensors]


def _within(storage: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The part of a storage, as bytes, that stands where another tensor does in its own."""
    place = torch.empty(0, dtype=like.dtype, device=like.device)
    where = (like.storage_offset(), like.shape, like.stride())
    return place.set_(storage.untyped_storage(), *where)


def _with_tensors(value: Tree, tensors: Iterator[torch.Tensor]) -> Tree:
    if isinstance(value, torch.Tensor):
        return next(tensors)
    if isinstance(value, dict):
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_tensors(item, tensors) for item in value)
    return value


def _same_shape(first: object, other: object, index: int) -> None:
    shapes = [
        [(tuple(t.shape), t.stride(), t.dtype, t.untyped_storage().nbytes()) for t in tensors_in(x)]
        for x in (first, other)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"inputs: wanted sets of one shape, set 0 has {shapes[0]}, set {index} {shapes[1]}"
        )
