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
from msa_suites.gpu.drawing import Draw, Stored, factors_of
from msa_suites.gpu.judging import (
    ALLOWED,
    attended_wrong,
    block_maxima,
    row_wrong,
    unlike_the_best,
)
from msa_suites.gpu.shapes import Timed

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
        lengths: int32 ``[B]`` of a cache, where ``msa`` reads one; it follows what changes there.
    """

    msa: Callable[[], Any]
    others: dict[str, Callable[[], object]] = field(default_factory=dict)
    flops: float = 0.0
    moved_bytes: float = 0.0
    problem: Callable[[Any], str] = lambda _result: ""
    lengths: Tensor | None = None


def work_of(row: Timed, implementation: Any, device: str) -> Work:  # noqa: ANN401
    """The calls of a row on random inputs of its shape."""
    return _MAKERS[row.what](row, implementation, Draw(row, device))


def _settings(row: Timed) -> dict[str, Any]:
    return {"block": row.block, "topk": row.topk}


def _bytes(*kept: Stored) -> int:
    """Of tensors with their factors."""
    return sum(x.codes.nbytes + (0 if x.descale is None else x.descale.nbytes) for x in kept)


def _dense(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> dict[str, Callable[[], object]]:
    """One call for each backend that torch has on the device: ``[B, H, t, D]``."""

    def run(backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    backends = _BACKENDS[q.device.type]
    return {one.name.lower().removesuffix("_attention"): partial(run, one) for one in backends}


def _prefill(row: Timed, implementation: Any, draw: Draw) -> Work:  # noqa: ANN401
    tokens, scale = row.batch * row.length, row.dim**-0.5
    q = draw.normal(tokens, row.heads, row.dim)
    k, v = (draw.cache(tokens, row.groups, row.dim) for _ in range(2))
    q_idx, k_idx = draw.index(draw.shared(tokens), draw.normal(tokens, 1, row.dim))
    totals = draw.totals(row.length)
    msa = partial(
        implementation.attend, q, k.codes, v.codes, q_idx.codes, k_idx.codes,
        cu_q=totals, cu_k=totals, **_settings(row), scale=scale, index_scale=scale,
        **factors_of(k=k, v=v, q_idx=q_idx, k_idx=k_idx),
    )  # fmt: skip
    wide = (q, k.values().to(q.dtype), v.values().to(q.dtype))
    heads_first = (x.view(row.batch, row.length, -1, row.dim).transpose(1, 2) for x in wide)

    def problem(result: tuple[Tensor, Tensor | None]) -> str:
        out, selection = result
        if selection is None:
            return ""
        at = row.length - 1
        mine = q_idx.rows(slice(at, at + 1)).values()[0]
        scores = block_maxima(row, mine, k_idx.rows(slice(row.length)).head(0).values())
        wrong = unlike_the_best(row, selection[at], scores)
        return wrong or attended_wrong(row, out, selection, q, k, v, at=at)

    return Work(
        msa,
        _dense(*heads_first, causal=True),
        row.batch * cost.exact_flops(row.shape, row.length)[1],
        2 * q.nbytes + 4 * tokens * row.groups * row.topk + _bytes(k, v, q_idx, k_idx),
        problem,
    )


def _decode(row: Timed, implementation: Any, draw: Draw) -> Work:  # noqa: ANN401
    scale, blocks = row.dim**-0.5, row.batch * (row.length // row.block)
    q = draw.normal(row.batch, 1, row.heads, row.dim)
    kept = [draw.cache(blocks, row.groups, row.block, row.dim) for _ in range(2)]
    pools, factors = [x.codes for x in kept], factors_of(k=kept[0], v=kept[1])
    q_idx, k_idx = draw.index(draw.shared(row.batch), draw.normal(blocks, 1, row.block, row.dim))
    lengths = {"cu_q": draw.totals(1), "cu_k": draw.totals(row.length)}
    paged = {"page_table": draw.pages(), "k_lens": lengths["cu_k"].diff()}
    pages = paged["page_table"].long()

    msa: Callable[[], tuple[Tensor, Tensor | None]]
    if hasattr(implementation, "attend_paged"):
        msa = partial(
            implementation.attend_paged, q, q_idx.codes[:, None], *pools, k_idx.codes, **paged,
            topk=row.topk, scale=scale, index_scale=scale, **factors,
            **factors_of(q_idx=q_idx, k_idx=k_idx),
        )  # fmt: skip
        follows = paged["k_lens"]
    else:
        # Packed index keys, which a cache would not have, and lengths that are another tensor.
        flat = k_idx.rows(pages.flatten()).in_a_row()
        follows = None

        def msa() -> tuple[Tensor, Tensor | None]:
            scores = implementation.block_scores(
                q_idx.codes, flat.codes, **lengths, block=row.block, scale=scale,
                **factors_of(q_idx=q_idx, k_idx=flat),
            )  # fmt: skip
            selection = implementation.select_blocks(scores, **lengths, **_settings(row))[:, None]
            out, _ = implementation.sparse_decode(
                q, *pools, selection, **paged, scale=scale, **factors
            )
            return out, selection

    def problem(result: tuple[Tensor, Tensor | None]) -> str:
        out, selection = result
        if selection is None:
            return ""
        for request in {0, row.batch - 1}:
            mine = pages[request]
            keys = k_idx.rows(mine).head(0).values().flatten(0, 1)
            scores = block_maxima(row, q_idx.rows(slice(request, request + 1)).values()[0], keys)
            chosen = selection[request, 0]
            wrong = unlike_the_best(row, chosen, scores)
            for group in range(row.groups):
                k, v = (x.rows(mine).head(group).values().flatten(0, 1) for x in kept)
                here = (out[request, 0], chosen, q[request, 0])
                wrong = wrong or row_wrong(row, *here, k, v, group)
            if wrong:
                return f"request {request}: {wrong}"
        return ""

    plain = [draw.normal(row.batch, row.groups, row.length, row.dim) for _ in range(2)]
    read = row.batch * cost.decode_bytes(row.shape, row.length)[1]
    seen = cost.attended_tokens(row.length - 1, block=row.block, topk=row.topk)
    flops = 2.0 * row.batch * row.dim * (row.groups * row.length + 2 * row.heads * seen)
    dense = _dense(q.transpose(1, 2), *plain, causal=False)
    return Work(msa, dense, flops, read, problem, follows)


def _scores(row: Timed, implementation: Any, draw: Draw) -> Work:  # noqa: ANN401
    rows = row.rows
    q_idx, k_idx = draw.index(draw.shared(rows), draw.normal(row.length, 1, row.dim))
    msa = partial(
        implementation.block_scores, q_idx.codes, k_idx.codes, cu_q=draw.totals(rows),
        cu_k=draw.totals(row.length), block=row.block, scale=row.dim**-0.5,
        **factors_of(q_idx=q_idx, k_idx=k_idx),
    )  # fmt: skip
    pairs = rows * row.length - rows * (rows - 1) / 2
    moved = _bytes(q_idx, k_idx) + 4 * rows * row.groups * row.length / row.block

    def problem(found: Tensor) -> str:
        wanted = block_maxima(row, q_idx.values()[-1], k_idx.head(0).values())
        error = float((found[-1].double() - wanted).abs().max() / wanted.abs().max())
        return "" if error <= ALLOWED else f"scores of the last row: relative error {error:.3g}"

    return Work(msa, {}, 2.0 * row.groups * row.dim * pairs, moved, problem)


def _topk(row: Timed, implementation: Any, draw: Draw) -> Work:  # noqa: ANN401
    rows, columns = row.rows, row.length // row.block
    scores = draw.normal(rows, row.groups, columns).float()
    msa = partial(
        implementation.select_blocks, scores, cu_q=draw.totals(rows),
        cu_k=draw.totals(row.length), **_settings(row),
    )  # fmt: skip
    count = min(row.topk, columns)
    others: dict[str, Callable[[], object]] = {}
    others["torch.topk"] = partial(torch.topk, scores, count, sorted=False)

    def problem(found: Tensor) -> str:
        wrong = unlike_the_best(row, found[-1], scores[-1].double(), slack=0.0)
        return f"last row: {wrong}" if wrong else ""

    # What a row sees: on average all but half of the blocks of the rows themselves.
    seen = rows * (row.length - (rows - 1) / 2) / row.block
    return Work(msa, others, 0.0, 4.0 * row.groups * seen, problem)


_MAKERS: dict[str, Callable[[Timed, Any, Draw], Work]] = {
    "prefill": _prefill,
    "decode": _decode,
    "scores": _scores,
    "topk": _topk,
}
