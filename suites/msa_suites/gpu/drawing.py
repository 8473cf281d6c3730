"""Random tensors of a row's sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.quantized import quantize
from msa_suites.gpu.shapes import SPANS, Timed

#: Their own part of an index query that neighbours share.
_OWN = 0.02


class Draw:
    """Draws for one row on one device, from a seed that follows from its length."""

    def __init__(self, row: Timed, device: str) -> None:
        self.row, self.device = row, device
        self._generator = torch.Generator(device).manual_seed(row.length)

    def normal(self, *shape: int) -> Tensor:
        dtype = getattr(torch, self.row.dtype)
        return torch.randn(*shape, generator=self._generator, device=self.device, dtype=dtype)

    def shared(self, rows: int) -> Tensor:
        """Index queries ``[rows, G, Di]``, alike among as many neighbours as the overlap says."""
        span, (groups, dim) = SPANS[self.row.overlap], (self.row.groups, self.row.dim)
        base = self.normal(-(-rows // span), groups, dim).repeat_interleave(span, 0)[:rows]
        return base if span == 1 else base.add_(self.normal(rows, groups, dim), alpha=_OWN)

    def stored(self, **index: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Index tensors as the row has them, and the keywords with the factors of their heads."""
        if not self.row.index_dtype:
            return list(index.values()), {}
        pairs = {name: quantize(x, axis=1) for name, x in index.items()}
        factors = {f"{name}_descale": descale for name, (_, descale) in pairs.items()}
        return [codes for codes, _ in pairs.values()], factors

    def totals(self, each: int) -> Tensor:
        """``[B + 1]`` of sequences of one length."""
        return torch.arange(self.row.batch + 1, dtype=torch.int32, device=self.device) * each

    def pages(self) -> Tensor:
        """A shuffled page table ``[B, N / Bk]``."""
        each = self.row.length // self.row.block
        order = torch.randperm(self.row.batch * each, generator=self._generator, device=self.device)
        return order.view(self.row.batch, each).int()
