"""The calls of a row: MSA, what it is compared with, and a check of the numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from msa import cost
from msa_suites.gpu.shapes import SPANS, Timed

#: Their own part of an index query that neighbours share.
_OWN = 0.02
#: Relative L2 error of a checked row: bfloat16 twice rounded.
_ALLOWED = 3e-2
_BACKENDS = {
    "cuda": (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
    ),
    "cpu": (SDPBackend.FLASH_ATTENTION,),
}


@dataclass(frozen=True)
class Work:
    """What is called for a row.

    Attributes:
        msa: the implementation's call.
        others: what it is compared with, by name; the fastest counts.
        flops: of ``msa``.
        moved_bytes: that ``msa`` has to read.
        problem: says what is wrong with a result of ``msa``, or nothing.
    """

    msa: Callable[[], Any]
    others: dict[str, Callable[[], object]] = field(default_factory=dict)
    flops: float = 0.0
    moved_bytes: float = 0.0
    problem: Callable[[Any], str] = lambda _result: ""


def work_of(row: Timed, implementation: Any, device: str) -> Work:  # noqa: ANN401
    """The calls of a row on random inputs of its shape."""
    return _MAKERS[row.what](row, implementation, _Draw(row, device))


class _Draw:
    """Random tensors of a row's sizes."""

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

    def totals(self, each: int) -> Tensor:
        """``[B + 1]`` of sequences of one length."""
        return torch.arange(self.row.batch + 1, dtype=torch.int32, device=self.device) * each

    def pages(self) -> Tensor:
        """A shuffled page table ``[B, N / Bk]``."""
        each = self.row.length // self.row.block
        order = torch.randperm(self.row.batch * each, generator=self._generator, device=self.device)
        return order.view(self.row.batch, each).int()


def _settings(row: Timed) -> dict[str, Any]:
    return {"block": row.block, "topk": row.topk}


def _dense(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> dict[str, Callable[[], object]]:
    """One call for each backend that torch has on the device: ``[B, H, t, D]``."""

    def run(backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    backends = _BACKENDS[q.device.type]
    return {one.name.lower().removesuffix("_attention"): partial(run, one) for one in backends}


def _prefill(row: Timed, implementation: Any, draw: _Draw) -> Work:  # noqa: ANN401
    tokens, scale = row.batch * row.length, row.dim**-0.5
    q = draw.normal(tokens, row.heads, row.dim)
    k, v = (draw.normal(tokens, row.groups, row.dim) for _ in range(2))
    q_idx, k_idx = draw.shared(tokens), draw.normal(tokens, 1, row.dim)
    totals = draw.totals(row.length)
    msa = partial(
        implementation.attend, q, k, v, q_idx, k_idx, cu_q=totals, cu_k=totals,
        **_settings(row), scale=scale, index_scale=scale,
    )  # fmt: skip
    heads_first = (x.view(row.batch, row.length, -1, row.dim).transpose(1, 2) for x in (q, k, v))

    def problem(result: tuple[Tensor, Tensor | None]) -> str:
        out, selection = result
        if selection is None:
            return ""
        return _attended_wrong(row, out, selection, q, k, v, at=row.length - 1)

    return Work(
        msa,
        _dense(*heads_first, causal=True),
        row.batch * cost.exact_flops(row.shape, row.length)[1],
        row.batch * cost.prefill_bytes(row.shape, row.length),
        problem,
    )


def _attended_wrong(
    row: Timed, out: Tensor, selection: Tensor, q: Tensor, k: Tensor, v: Tensor, *, at: int
) -> str:
    """Whether the output of the last query of the first sequence follows from its selection."""
    share = row.heads // row.groups
    for group in range(row.groups):
        chosen = selection[at, group]
        chosen = chosen[chosen >= 0].long()
        tokens = (chosen[:, None] * row.block + torch.arange(row.block, device=q.device)).flatten()
        tokens = tokens[tokens <= at]
        heads = slice(group * share, (group + 1) * share)
        logits = q[at, heads].double() @ k[tokens, group].double().T * row.dim**-0.5
        wanted = logits.softmax(-1) @ v[tokens, group].double()
        error = float((out[at, heads].double() - wanted).norm() / wanted.norm())
        if not error <= _ALLOWED:
            return f"output of row {at}, group {group}: relative error {error:.3g}"
    return ""


def _decode(row: Timed, implementation: Any, draw: _Draw) -> Work:  # noqa: ANN401
    scale, blocks = row.dim**-0.5, row.batch * (row.length // row.block)
    q = draw.normal(row.batch, 1, row.heads, row.dim)
    pools = [draw.normal(blocks, row.groups, row.block, row.dim) for _ in range(2)]
    q_idx, k_idx = draw.shared(row.batch), draw.normal(row.batch * row.length, 1, row.dim)
    lengths = {"cu_q": draw.totals(1), "cu_k": draw.totals(row.length)}
    paged = {"page_table": draw.pages(), "k_lens": lengths["cu_k"].diff()}

    def msa() -> object:
        scores = implementation.block_scores(q_idx, k_idx, **lengths, block=row.block, scale=scale)
        selection = implementation.select_blocks(scores, **lengths, **_settings(row))
        return implementation.sparse_decode(q, *pools, selection[:, None], **paged, scale=scale)

    keys, values = (draw.normal(row.batch, row.groups, row.length, row.dim) for _ in range(2))
    read = row.batch * cost.decode_bytes(row.shape, row.length)[1]
    seen = cost.attended_tokens(row.length - 1, block=row.block, topk=row.topk)
    flops = 2.0 * row.batch * row.dim * (row.groups * row.length + 2 * row.heads * seen)
    return Work(msa, _dense(q.transpose(1, 2), keys, values, causal=False), flops, read)


def _scores(row: Timed, implementation: Any, draw: _Draw) -> Work:  # noqa: ANN401
    rows = row.rows
    q_idx, k_idx = draw.shared(rows), draw.normal(row.length, 1, row.dim)
    msa = partial(
        implementation.block_scores, q_idx, k_idx, cu_q=draw.totals(rows),
        cu_k=draw.totals(row.length), block=row.block, scale=row.dim**-0.5,
    )  # fmt: skip
    pairs = rows * row.length - rows * (rows - 1) / 2
    each = k_idx.element_size()
    moved = each * (q_idx.numel() + k_idx.numel()) + 4 * rows * row.groups * row.length / row.block
    return Work(msa, {}, 2.0 * row.groups * row.dim * pairs, moved)


def _topk(row: Timed, implementation: Any, draw: _Draw) -> Work:  # noqa: ANN401
    rows, columns = row.rows, row.length // row.block
    scores = draw.normal(rows, row.groups, columns).float()
    msa = partial(
        implementation.select_blocks, scores, cu_q=draw.totals(rows),
        cu_k=draw.totals(row.length), **_settings(row),
    )  # fmt: skip
    count = min(row.topk, columns)
    others: dict[str, Callable[[], object]] = {}
    others["torch.topk"] = partial(torch.topk, scores, count, sorted=False)
    return Work(msa, others, 0.0, 4.0 * scores.numel())


_MAKERS: dict[str, Callable[[Timed, Any, _Draw], Work]] = {
    "prefill": _prefill,
    "decode": _decode,
    "scores": _scores,
    "topk": _topk,
}
