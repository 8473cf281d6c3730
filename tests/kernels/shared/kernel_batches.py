"""Batches for kernel tests, and what is right for them in float64."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from msa import reference
from msa.packing import cumulative, segments
from msa_suites.correctness.eager import eager_attention
from msa_suites.correctness.passrule import compare


@dataclass(frozen=True)
class Shape:
    """Lengths and sizes of a batch."""

    q_lens: tuple[int, ...]
    k_lens: tuple[int, ...]
    groups: int = 2
    share: int = 2
    dim: int = 64
    index_dim: int = 32
    block: int = 16
    topk: int = 3
    dtype: torch.dtype = torch.float32
    seed: int = 0
    packing: dict = field(init=False)

    def __post_init__(self):
        packing = {
            "cu_q": cumulative(list(self.q_lens)),
            "cu_k": cumulative(list(self.k_lens)),
            "block": self.block,
        }
        object.__setattr__(self, "packing", packing)

    @property
    def rows(self):
        return sum(self.q_lens)

    @property
    def keys(self):
        return sum(self.k_lens)

    @property
    def scale(self):
        return self.dim**-0.5

    def generator(self):
        return torch.Generator().manual_seed(self.seed)

    def main(self):
        """q, k, v; the queries are sharp enough that a missing token is seen."""
        g = self.generator()
        q = torch.randn(self.rows, self.groups * self.share, self.dim, generator=g) * 1.5
        k, v = torch.randn(2, self.keys, self.groups, self.dim, generator=g)
        return tuple(x.to(self.dtype) for x in (q, k, v))

    def index(self, heads=1):
        g = self.generator()
        q = torch.randn(self.rows, self.groups, self.index_dim, generator=g)
        k = torch.randn(self.keys, heads, self.index_dim, generator=g)
        return q.to(self.dtype), k.to(self.dtype)

    def positions(self):
        found = [s.positions() for s in segments(self.packing["cu_q"], self.packing["cu_k"])]
        return torch.cat(found)

    def selection(self):
        """The local block and others at random, in any order, empty slots anywhere among them."""
        g = self.generator()
        local = self.positions() // self.block
        chosen = torch.full((self.rows, self.groups, self.topk), -1, dtype=torch.int32)
        for row, newest in enumerate(local.tolist()):
            for group in range(self.groups):
                others = torch.randperm(newest, generator=g)[: self.topk - 1]
                ids = torch.cat([others, torch.tensor([newest])]).int()
                places = torch.randperm(self.topk, generator=g)[: len(ids)]
                chosen[row, group, places] = ids
        return chosen


def assert_attends(got, q, k, v, selection, packing, scale):
    """Output and LSE obey the pass rule of the conformance suite."""
    kwargs = {**packing, "scale": scale}
    truth = reference.sparse_attention(q.double(), k.double(), v.double(), selection, **kwargs)
    eager = eager_attention(q, k, v, selection, **kwargs)
    for what, mine, right, yardstick in zip(("out", "lse"), got, truth, eager, strict=True):
        assert mine.dtype == (q.dtype if what == "out" else torch.float32)
        wrong = compare(mine, right.double(), eager=yardstick, dtype=q.dtype)
        assert wrong is None, f"{what}: {wrong}"
