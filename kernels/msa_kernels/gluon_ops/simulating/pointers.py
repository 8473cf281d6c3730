"""Global memory that knows its bounds, and that each element of a result is written once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from msa_kernels.gluon_ops.simulating.agents import BoundsError, LostError


class Pointer:
    """Global memory: the elements of a tensor's storage, from one of them on.

    Args:
        tensor: what the launcher passed.
        written: a flag for each element of its storage; each is written once a launch.
        at: element of the storage, a number or a tensor of numbers.
    """

    def __init__(self, tensor: Tensor, written: Tensor, at: Any) -> None:  # noqa: ANN401
        self._tensor, self._written, self._at = tensor, written, at

    def __add__(self, offset: Any) -> Pointer:  # noqa: ANN401
        return Pointer(self._tensor, self._written, self._at + offset)

    __radd__ = __add__

    def __getitem__(self, key: Any) -> Pointer:  # noqa: ANN401
        return Pointer(self._tensor, self._written, self._at[key])

    @property
    def dtype(self) -> SimpleNamespace:
        return SimpleNamespace(element_ty=self._tensor.dtype)

    @property
    def _flat(self) -> Tensor:
        size = self._written.numel()
        return self._tensor.as_strided((size,), (1,), 0)

    def _places(self, mask: Any, what: str) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        at = torch.as_tensor(self._at).long()
        live = torch.as_tensor(True if mask is None else mask)
        at, live = torch.broadcast_tensors(at, live)
        begin = self._tensor.storage_offset()
        sizes = zip(self._tensor.shape, self._tensor.stride(), strict=True)
        end = begin + (1 + sum((n - 1) * step for n, step in sizes)) * (self._tensor.numel() > 0)
        out = live & ((at < begin) | (at >= end))
        if bool(out.any()):
            raise BoundsError(
                f"{what}: wanted an element of {list(self._tensor.shape)} from {begin} to {end}, "
                f"got {int(at[out].flatten()[0])}"
            )
        return torch.where(live, at, 0), live

    def load(self, mask: Any, other: Any) -> Tensor:  # noqa: ANN401
        at, live = self._places(mask, "load")
        if not self._written.numel():
            return torch.full(at.shape, other, dtype=self._tensor.dtype)
        found = self._flat[at]
        return found if mask is None else torch.where(live, found, _as(other or 0, found))

    def store(self, value: Any, mask: Any) -> None:  # noqa: ANN401
        at, live = self._places(mask, "store")
        value = torch.as_tensor(value).to(self._tensor.dtype).broadcast_to(at.shape)
        at, value = at[live], value[live]
        if at.unique().numel() != at.numel() or bool(self._written[at].any()):
            raise LostError(f"store to {list(self._tensor.shape)}: an element is written twice")
        self._written[at] = True
        self._flat[at] = value


def _as(value: float, like: Tensor) -> Tensor:
    return torch.tensor(value, dtype=like.dtype)
