"""Small runs of each kernel in the simulation, which a test may choose orders and mistakes for."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass, replace

import torch

from msa import nvfp4, reference
from msa.packing import cumulative
from msa_kernels.gluon_ops import arms, attention, decoding, launching, scoring
from msa_kernels.gluon_ops.simulating import simulate

SM100, SM90 = (arms.simulated(arm) for arm in arms.ARMS)


@dataclass(frozen=True)
class Batch:
    """A batch of random tensors: blocks of 32; keys and values of ``bits``, 16, 8 or 4."""

    queries: tuple[int, ...] = (5, 40)
    keys: tuple[int, ...] = (300, 40)
    own_keys: bool = False
    topk: int = 4
    seed: int = 7
    bits: int = 16
    wide_rows: bool = False
    groups: int = 2
    share: int = 2

    @property
    def heads(self):
        return self.groups * self.share

    @property
    def dim(self):
        """Channels: as few as there can be, or as many."""
        return 128 if self.wide_rows else 64 if self.bits == 4 else 32

    def draw(self, *shape, salt=0):
        generator = torch.Generator().manual_seed(self.seed + sum(shape) + 1009 * salt)
        return torch.randn(shape, generator=generator).half()

    def stored(self, drawn):
        """Keys or values as a cache of ``bits`` has them, and the scales of those of 4.

        Each group of 16 channels gets a size of its own, and some a scale of zero.
        """
        if self.bits == 16:
            return drawn, None
        if self.bits == 8:
            return drawn.to(torch.float8_e4m3fn), None
        sizes = self.draw(*drawn.shape[:-1], self.dim // nvfp4.GROUP, salt=3).float()
        elements, scales = nvfp4.quantize(
            drawn.float() * sizes.abs().repeat_interleave(nvfp4.GROUP, -1)
        )
        return elements, torch.where(sizes > 1.5, 0.0, scales.float()).to(scales.dtype)

    def cached(self, *shape, salt=0):
        """:meth:`stored` of a draw."""
        return self.stored(self.draw(*shape, self.dim, salt=salt))

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
    want = oracle(*map(_meant, tensors), **settings)
    return got, want


def _meant(x):
    """What a reference takes: bytes of NVFP4 have their scales beside them."""
    return x if not x.is_floating_point() or x.dtype == nvfp4.NVFP4 else x.double()


def scores(arm, batch):
    q = batch.draw(sum(batch.queries), batch.groups, batch.dim)
    k, scales = batch.cached(sum(batch.keys), batch.groups if batch.own_keys else 1)
    return _both(
        scoring.block_scores, reference.block_scores, arm, q, k, **batch.packing, scale=0.2,
        k_idx_descale=scales,
    )  # fmt: skip


def attended(arm, batch):
    q = batch.draw(sum(batch.queries), batch.heads, batch.dim)
    shape = (sum(batch.keys), batch.groups)
    (k, k_scales), (v, v_scales) = (batch.cached(*shape, salt=salt) for salt in (1, 2))
    chosen = batch.selection(len(q), batch.groups)
    return _both(
        attention.sparse_attention, reference.sparse_attention, arm, q, k, v, chosen,
        **batch.packing, scale=0.2, k_descale=k_scales, v_descale=v_scales,
    )  # fmt: skip


def paged(batch, heads, *, salt=0):
    """Pages of requests, NaN behind each last key, with their scales; table and lengths."""
    lengths = torch.tensor([max(one, 1) for one in batch.keys], dtype=torch.int32)
    width = -(-int(lengths.max()) // 32)
    pages = torch.randperm(
        len(lengths) * width, generator=torch.Generator().manual_seed(batch.seed)
    )
    table = pages.view(len(lengths), width).int()
    drawn = batch.draw(len(pages), heads, 32, batch.dim, salt=salt)
    for request, length in enumerate(lengths.tolist()):
        for number, page in enumerate(table[request].tolist()):
            drawn[page, :, max(0, min(32, length - number * 32)) :] = torch.nan
    return (*batch.stored(drawn), {"page_table": table, "k_lens": lengths})


def paged_scores(arm, batch):
    """One query a request."""
    k, scales, pages = paged(batch, batch.groups if batch.own_keys else 1)
    q = batch.draw(len(pages["k_lens"]), 1, batch.groups, batch.dim)
    return _both(
        scoring.paged_block_scores, reference.paged_block_scores, arm, q, k, **pages, scale=0.2,
        k_idx_descale=scales,
    )  # fmt: skip


def decoded(arm, batch):
    """One query a request."""
    k, k_scales, pages = paged(batch, batch.groups, salt=1)
    v, v_scales, _ = paged(batch, batch.groups, salt=2)
    lengths = pages["k_lens"]
    q = batch.draw(len(lengths), 1, batch.heads, batch.dim)
    chosen = batch.selection(len(lengths), 1, batch.groups)
    beyond = chosen >= (-(-lengths // 32))[:, None, None, None]
    chosen = chosen.masked_fill(beyond, -1)
    return _both(
        decoding.sparse_decode, reference.sparse_decode, arm, q, k, v, chosen, **pages, scale=0.2,
        k_descale=k_scales, v_descale=v_scales,
    )  # fmt: skip


RUNS = {
    "scores": scores,
    "paged scores": paged_scores,
    "attention": attended,
    "decode": decoded,
}


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
