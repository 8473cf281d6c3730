"""Small runs of each kernel in the simulation, which a test may choose orders and mistakes for."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass, replace

import torch

from msa import reference
from msa.packing import cumulative
from msa_kernels.gluon_ops import arms, attention, decoding, launching, scoring
from msa_kernels.gluon_ops.simulating import simulate

SM100, SM90 = (arms.simulated(arm) for arm in arms.ARMS)


@dataclass(frozen=True)
class Batch:
    """A batch of random tensors: blocks of 32, channels of 32."""

    queries: tuple[int, ...] = (5, 40)
    keys: tuple[int, ...] = (300, 40)
    own_keys: bool = False
    topk: int = 4
    seed: int = 7
    eight_bits: bool = False
    groups: int = 2
    share: int = 2

    @property
    def heads(self):
        return self.groups * self.share

    def draw(self, *shape):
        generator = torch.Generator().manual_seed(self.seed + sum(shape))
        return torch.randn(shape, generator=generator).half()

    def cached(self, *shape):
        """Keys or values, perhaps in E4M3 beside queries of sixteen bits."""
        drawn = self.draw(*shape)
        return drawn.to(torch.float8_e4m3fn) if self.eight_bits else drawn

    @property
    def packing(self):
        lengths = {"cu_q": self.queries, "cu_k": self.keys}
        return {name: cumulative(list(one)) for name, one in lengths.items()} | {"block": 32}

    def selection(self, *shape):
        """Blocks that may not be there, be there twice, or not yet be visible."""
        generator = torch.Generator().manual_seed(self.seed)
        most = max(1, -(-max(self.keys, default=1) // 32))
        return torch.randint(-1, most, (*shape, self.topk), generator=generator).int()


def _both(operation, oracle, arm, *tensors, **settings):
    got = operation(arm, *tensors, **settings)
    want = oracle(*(x.double() if x.is_floating_point() else x for x in tensors), **settings)
    return got, want


def scores(arm, batch):
    q = batch.draw(sum(batch.queries), batch.groups, 32)
    k = batch.cached(sum(batch.keys), batch.groups if batch.own_keys else 1, 32)
    return _both(
        scoring.block_scores, reference.block_scores, arm, q, k, **batch.packing, scale=0.2
    )


def attended(arm, batch):
    q = batch.draw(sum(batch.queries), batch.heads, 32)
    k, v = (batch.cached(sum(batch.keys), batch.groups, 32, seed)[..., 0] for seed in (1, 2))
    chosen = batch.selection(len(q), batch.groups)
    oracle = reference.sparse_attention
    return _both(
        attention.sparse_attention, oracle, arm, q, k, v, chosen, **batch.packing, scale=0.2
    )


def decoded(arm, batch):
    """One query a request; what lies behind a last key is NaN."""
    lengths = torch.tensor([max(one, 1) for one in batch.keys], dtype=torch.int32)
    width = -(-int(lengths.max()) // 32)
    pages = torch.randperm(
        len(lengths) * width, generator=torch.Generator().manual_seed(batch.seed)
    )
    table = pages.view(len(lengths), width).int()
    k, v = (batch.draw(len(pages), batch.groups, 32, 32, seed)[..., 0] for seed in (1, 2))
    for request, length in enumerate(lengths.tolist()):
        for number, page in enumerate(table[request].tolist()):
            for cache in (k, v):
                cache[page, :, max(0, min(32, length - number * 32)) :] = torch.nan
    if batch.eight_bits:
        k, v = (x.to(torch.float8_e4m3fn) for x in (k, v))
    q = batch.draw(len(lengths), 1, batch.heads, 32)
    chosen = batch.selection(len(lengths), 1, batch.groups)
    beyond = chosen >= (-(-lengths // 32))[:, None, None, None]
    chosen = chosen.masked_fill(beyond, -1)
    return _both(
        decoding.sparse_decode, reference.sparse_decode, arm, q, k, v, chosen,
        page_table=table, k_lens=lengths, scale=0.2,
    )  # fmt: skip


RUNS = {"scores": scores, "attention": attended, "decode": decoded}


def simulated(monkeypatch, run, arm, batch=None, **how):
    """A run, with the simulation told how to choose and what to replace."""
    with monkeypatch.context() as patch:
        patch.setattr(
            launching, "simulate", lambda *args, **kwargs: simulate(*args, **kwargs, **how)
        )
        return RUNS[run](arm, batch or Batch())


def assert_right(got, want):
    pairs = [(got, want)] if isinstance(got, torch.Tensor) else list(zip(got, want, strict=True))
    for one, other in pairs:
        assert torch.equal(one.isneginf(), other.isneginf())
        assert torch.allclose(one.double(), other.double(), rtol=2e-3, atol=2e-3)


def planted(function, *changes):
    """A kernel's function with some of its text changed, as the simulation replaces it."""
    text = textwrap.dedent(inspect.getsource(function.fn))
    text = text[text.index("def ") :]
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {function}"
        text = text.replace(old, new)
    names = dict(function.fn.__globals__)
    exec(compile(text, "<planted>", "exec"), names)
    return {function.fn.__name__: names[function.fn.__name__]}


def with_keys(*keys):
    return replace(Batch(), queries=tuple(1 for _ in keys), keys=keys)
