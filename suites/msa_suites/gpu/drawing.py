"""Random tensors of a row's sizes, as the row keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msa import nvfp4
from msa.nvfp4 import NVFP4
from msa.quantized import quantize
from msa_suites.case import E4M3
from msa_suites.gpu.shapes import SPANS, Timed

#: Their own part of an index query that neighbours share.
_OWN = 0.02
#: Elements that become NVFP4 together: on the way each takes twenty bytes.
_TOGETHER = 1 << 26


@dataclass(frozen=True)
class Stored:
    """A tensor as a row keeps it, with its heads on the second axis.

    Attributes:
        codes: ``[n, H, .., d]``, of NVFP4 ``[n, H, .., d / 2]``.
        descale: of E4M3 the factors of the heads ``[H]``, of NVFP4 its scales
            ``[n, H, .., d / 16]``; None where the codes are the values.
    """

    codes: Tensor
    descale: Tensor | None = None

    def rows(self, at: slice | Tensor) -> Stored:
        """Some of the first axis."""
        return self._map(lambda x: x[at])

    def head(self, at: int) -> Stored:
        """One head, ``[n, .., d]``."""
        mine = self._map(lambda x: x[:, at])
        if self.codes.dtype == NVFP4 or self.descale is None:
            return mine
        return replace(mine, descale=self.descale[at])

    def in_a_row(self) -> Stored:
        """Pages ``[n, 1, b, d]`` as packed tokens ``[n * b, 1, d]``."""
        return self._map(lambda x: x[:, 0].flatten(0, 1)[:, None])

    def _map(self, take: Callable[[Tensor], Tensor]) -> Stored:
        """``take`` of the codes, and of scales that lie beside them."""
        if self.codes.dtype != NVFP4 or self.descale is None:
            return replace(self, codes=take(self.codes))
        # PyTorch has no indexing of this dtype.
        return Stored(take(self.codes.view(torch.uint8)).view(NVFP4), take(self.descale))

    def values(self) -> Tensor:
        """What is meant: of E4M3 in float64, of NVFP4 in bfloat16, which holds it."""
        if self.descale is None:
            return self.codes
        if self.codes.dtype == NVFP4:
            return nvfp4.values(self.codes, self.descale, dtype=torch.bfloat16)
        each = [-1] + [1] * (self.codes.ndim - 2)
        factors = self.descale.double()
        return self.codes.double() * (factors.view(each) if factors.ndim else factors)


def factors_of(**kept: Stored) -> dict[str, Tensor]:
    """The keywords of operations that take these tensors."""
    return {f"{name}_descale": x.descale for name, x in kept.items() if x.descale is not None}


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

    def index(self, q_idx: Tensor, k_idx: Tensor) -> tuple[Stored, Stored]:
        """Index queries and keys as the row has them."""
        dtype = self.row.index_dtype
        return _kept(q_idx, dtype if dtype == E4M3 else ""), _kept(k_idx, dtype)

    def cache(self, *shape: int) -> Stored:
        """Keys or values as the row has them."""
        return _kept(self.normal(*shape), self.row.kv_dtype)

    def totals(self, each: int) -> Tensor:
        """``[B + 1]`` of sequences of one length."""
        return torch.arange(self.row.batch + 1, dtype=torch.int32, device=self.device) * each

    def pages(self) -> Tensor:
        """A shuffled page table ``[B, N / Bk]``."""
        each = self.row.length // self.row.block
        order = torch.randperm(self.row.batch * each, generator=self._generator, device=self.device)
        return order.view(self.row.batch, each).int()


def _kept(x: Tensor, dtype: str) -> Stored:
    if dtype == E4M3:
        return Stored(*quantize(x, axis=1))
    if not dtype:
        return Stored(x)
    parts = [nvfp4.quantize(part) for part in x.split(max(_TOGETHER // x[0].numel(), 1))]
    codes = torch.cat([part.view(torch.uint8) for part, _ in parts])
    return Stored(codes.view(NVFP4), torch.cat([scales for _, scales in parts]))
