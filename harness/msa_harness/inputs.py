"""Inputs inside a worker: several sets, refreshed before each timed call, guarded against writes.

Every timed call reads the same buffers with new contents: a result remembered by address, by
object or by content is then stale, and the judge, who is told which contents were used, sees it.
Imports torch and the standard library only.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from msa_harness.protocol import Tree, moved, tensors_in

# Half an octave around one: the contents never repeat, magnitudes stay alike.
_LOWEST, _HIGHEST = 0.8, 1.25


class InputMutatedError(Exception):
    """The code under test wrote into its inputs."""


class Guard:
    """Remembers the bytes of all storages behind a tree of arguments, gaps between rows included.

    Bytes, not values: inputs hold NaN on purpose, and NaN is not equal to itself.
    """

    def __init__(self, tree: object) -> None:
        self._tensors = tensors_in(tree)
        self._meta = [_meta(tensor) for tensor in self._tensors]
        self._before = [view.clone() for view in _storages(self._tensors)]

    def check(self) -> None:
        """Raise where an input is not what it was.

        Raises:
            InputMutatedError: An input's contents, shape or strides changed.
        """
        for index, (tensor, meta) in enumerate(zip(self._tensors, self._meta, strict=True)):
            if _meta(tensor) != meta:
                raise InputMutatedError(
                    f"input tensor {index}: wanted it unchanged, was {meta}, is {_meta(tensor)}"
                )
        for index, (before, after) in enumerate(
            zip(self._before, _storages(self._tensors), strict=True)
        ):
            if not _same_bytes(before, after):
                changed = int((before != after).sum())
                raise InputMutatedError(
                    f"input storage {index}: wanted it unchanged, {changed} of {before.numel()} "
                    "bytes differ after the call"
                )


def _meta(tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...], str, int]:
    return tuple(tensor.shape), tensor.stride(), str(tensor.dtype), tensor.data_ptr()


def _storages(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """One byte view of each distinct storage."""
    seen: dict[int, torch.Tensor] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            view = torch.empty(0, dtype=torch.uint8, device=tensor.device)
            seen[storage.data_ptr()] = view.set_(storage)
    return list(seen.values())


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two byte tensors of one length agree; eight bytes at a time, which is much faster."""
    whole = one.numel() // 8 * 8
    words = (x[:whole].view(torch.int64) for x in (one, other))
    return torch.equal(*words) and torch.equal(one[whole:], other[whole:])


@dataclass(frozen=True, slots=True)
class Fresh:
    """The inputs of one call, and how the judge rebuilds them.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        index: Which set they are.
        scale: What the varied tensors of the set were multiplied with.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    index: int
    scale: float


class InputSets:
    """Sets of arguments of one shape, handed out in turn through one set of buffers."""

    def __init__(self, sets: object, device: str, vary: Sequence[str], seed: int) -> None:
        """Take `[{"args": [...], "kwargs": {...}}, ...]`.

        Raises:
            ValueError: No set, sets of different shapes, or a name to vary that is not there.
        """
        if not isinstance(sets, list) or not sets:
            raise ValueError(f"inputs: wanted a list of at least one set, got {sets!r:.80}")
        self._sets = [moved(one, torch.device(device)) for one in sets]
        self._working = [copy.deepcopy(self._sets[0])]
        for index, one in enumerate(self._sets[1:], start=1):
            _same_shape(self._sets[0], one, index)
            self._working.append(_with_tensors(one, iter(tensors_in(self._working[0]))))
        self._vary = [self._named(name) for name in vary]
        self._restored = [
            self._pairs(working, one)
            for working, one in zip(self._working, self._sets, strict=True)
        ]
        self._random = random.Random(seed)
        self._next = 0

    def __len__(self) -> int:
        return len(self._sets)

    def fresh(self) -> Fresh:
        """New contents in the same buffers."""
        index = self._next % len(self._sets)
        self._next += 1
        scale = self._random.uniform(_LOWEST, _HIGHEST) if self._vary else 1.0
        for target, source, varies in self._restored[index]:
            if varies:
                torch.mul(source, scale, out=target)
            else:
                target.copy_(source)
        working = self._working[index]
        return Fresh(working["args"], working["kwargs"], index, scale)

    def _pairs(self, working: Tree, one: Tree) -> list[tuple[torch.Tensor, torch.Tensor, bool]]:
        """What is written before a call, from where: storages, or varied tensors within them."""
        tensors = list(zip(tensors_in(working), tensors_in(one), strict=True))
        varied = [
            (target, source, True)
            for target, source in tensors
            if any(target is tensor for tensor in self._vary)
        ]
        # A varied tensor that fills its storage is written in one pass.
        filled = {
            target.untyped_storage().data_ptr()
            for target, _, _ in varied
            if target.is_contiguous() and target.nbytes == target.untyped_storage().nbytes()
        }
        storages = zip(*(_storages(list(side)) for side in zip(*tensors, strict=True)), strict=True)
        plain = [
            (target, source, False)
            for target, source in storages
            if target.untyped_storage().data_ptr() not in filled
        ]
        return [*plain, *varied]

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
