"""Code under test may not write into its inputs: bytes, shapes and strides before and after a call.

Bytes, not values: inputs hold NaN on purpose, and NaN is not equal to itself. Imports torch and the
standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from msa_harness.protocol import tensors_in

_Layout: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], str, int]


class InputMutatedError(Exception):
    """The code under test wrote into its inputs."""


class Guard:
    """Remembers the bytes of all storages behind a tree of arguments, gaps of rows included."""

    def __init__(self, tree: object) -> None:
        self._tensors = tensors_in(tree)
        self._layouts = layouts(self._tensors)
        self._before = [view.clone() for view in storages(self._tensors)]

    def check(self) -> None:
        """Raise where an input is not what it was.

        Raises:
            InputMutatedError: An input's contents, shape or strides changed.
        """
        check_layouts(self._tensors, self._layouts)
        for index, after in enumerate(storages(self._tensors)):
            check_bytes(index, self._before[index], after)


def layouts(tensors: Sequence[torch.Tensor]) -> list[_Layout]:
    """Shape, strides, dtype and address of each tensor."""
    return [(tuple(t.shape), t.stride(), str(t.dtype), t.data_ptr()) for t in tensors]


def check_layouts(tensors: Sequence[torch.Tensor], before: Sequence[_Layout]) -> None:
    """Raise InputMutatedError where one of the tensors is not laid out as before."""
    for index, (was, now) in enumerate(zip(before, layouts(tensors), strict=True)):
        if now != was:
            raise InputMutatedError(
                f"input tensor {index}: wanted it unchanged, was {was}, is {now}"
            )


def check_bytes(index: int, before: torch.Tensor, after: torch.Tensor) -> None:
    """Raise InputMutatedError where the bytes of a storage differ; eight at a time are faster."""
    whole = before.numel() // 8 * 8
    words = (x[:whole].view(torch.int64) for x in (before, after))
    if not (torch.equal(*words) and torch.equal(before[whole:], after[whole:])):
        changed = int((before != after).sum())
        raise InputMutatedError(
            f"input storage {index}: wanted it unchanged, {changed} of {before.numel()} "
            "bytes differ after the call"
        )


def storages(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """One byte view of each distinct storage, in order of appearance."""
    seen: dict[int, torch.Tensor] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            view = torch.empty(0, dtype=torch.uint8, device=tensor.device)
            seen[storage.data_ptr()] = view.set_(storage)
    return list(seen.values())
