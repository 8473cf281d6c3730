"""Tensors in global memory that bulk copies take boxes of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Descriptor:
    """A tensor in global memory that bulk copies take boxes of.

    Args:
        given: the descriptor that the launcher made.
    """

    def __init__(self, given: Any) -> None:  # noqa: ANN401 - Triton's
        self._base: Tensor = given.base
        self._shape, self._strides = list(given.shape), list(given.strides)
        self.block_shape = list(given.block_shape)
        self.layout = given.layout
        self.dtype = self._base.dtype

    def box(self, corner: Sequence[int]) -> Tensor:
        """The elements from a corner on; zeros outside of the tensor."""
        place: Tensor = torch.zeros((), dtype=torch.long)
        inside: Tensor = torch.ones((), dtype=torch.bool)
        for axis, size in enumerate(self.block_shape):
            ones = [1] * axis + [size] + [1] * (len(self.block_shape) - axis - 1)
            at = (torch.arange(size) + int(corner[axis])).view(ones)
            inside = inside & (at >= 0) & (at < self._shape[axis])
            place = place + at * self._strides[axis]
        return self._at(place, inside)

    def rows(self, numbers: Tensor, column: int) -> Tensor:
        """The boxes of one row each that begin in these rows, one under the other."""
        columns = torch.arange(self.block_shape[1]) + int(column)
        inside = ((numbers >= 0) & (numbers < self._shape[0]))[:, None]
        inside = inside & ((columns >= 0) & (columns < self._shape[1]))[None, :]
        place = numbers.long()[:, None] * self._strides[0] + columns * self._strides[1]
        return self._at(place, inside)

    def _at(self, place: Tensor, inside: Tensor) -> Tensor:
        extent = 1 + sum((n - 1) * s for n, s in zip(self._shape, self._strides, strict=True))
        flat = self._base.as_strided((extent,), (1,), self._base.storage_offset())
        found = flat[torch.where(inside, place, 0)]
        return torch.where(inside, found.float(), 0.0).to(self.dtype)
