"""Every launch of this implementation on tensors of a shape: for whoever compiles and never runs.

The contents are zeros and the results mean nothing. Launchers take CPU tensors here because the
caller has put a compilation in the place of each launch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from msa.packing import cumulative
from msa.quantized import E4M3, output_dtype
from msa_kernels.triton_ops.appending import put_tokens
from msa_kernels.triton_ops.attention import key_outer, query_outer
from msa_kernels.triton_ops.backward import differentiate
from msa_kernels.triton_ops.index_loss import align
from msa_kernels.triton_ops.scoring.launching import score_pages, score_rows
from msa_kernels.triton_ops.selecting import select_of_pages, select_rows

#: Enough for several tiles, and for as many programs that no launch is split for want of them.
_ROWS, _KEYS, _REQUESTS = 256, 4096, 2


def launches(
    *, dtype: str, heads: int, groups: int, dim: int, block: int, topk: int, cache_dtype: str = ""
) -> None:
    """Call every launcher once; of E4M3 those of the forward, which are all that take it.

    Args:
        dtype: ``float32``, ``float16``, ``bfloat16`` or ``float8_e4m3fn``.
        heads: Hq.
        groups: Hkv.
        dim: D, and Di.
        block: tokens per block.
        topk: blocks kept.
        cache_dtype: of pages, and of the index queries over them; "" for ``dtype``.
    """
    factors = {
        name: torch.ones(many)
        for name, many in (("q", heads), ("k", groups), ("q_idx", groups), ("k_idx", 1))
    }

    def of(name: str, x: Tensor) -> Tensor | None:
        return factors[name] if x.dtype == E4M3 else None

    packing: dict[str, Any] = {
        "cu_q": cumulative([_ROWS]),
        "cu_k": cumulative([_KEYS]),
        "block": block,
    }
    q = torch.zeros(_ROWS, heads, dim, dtype=getattr(torch, dtype))
    k, v = torch.zeros(2, _KEYS, groups, dim, dtype=q.dtype)
    selection = torch.zeros(_ROWS, groups, topk, dtype=torch.int32)
    out, lse = torch.zeros_like(q, dtype=output_dtype(q)), torch.zeros(_ROWS, heads)
    scores = torch.zeros(_ROWS, groups, _KEYS // block)
    q_idx, k_idx = q[:, :groups].contiguous(), k[:, :1].contiguous()
    pair = (of("q_idx", q_idx), of("k_idx", k_idx))
    score_rows(q_idx, k_idx, scores, 0, **packing, scale=0.1, factors=pair)
    select_rows(scores, selection, 0, **packing, local_blocks=1, sink_blocks=0)
    for way in (query_outer, key_outer):
        triple = (of("q", q), of("k", k), of("k", v))
        way.attend_packed(q, k, v, selection, out, lse, **packing, scale=0.1, factors=triple)
    cached = getattr(torch, cache_dtype or dtype)
    k_pages, v_pages = torch.zeros(2, _KEYS // block, groups, block, dim, dtype=cached)
    pages: dict[str, Any] = {
        "page_table": torch.zeros(_REQUESTS, _KEYS // block, dtype=torch.int32),
        "k_lens": torch.full((_REQUESTS,), _KEYS, dtype=torch.int32),
    }
    few = torch.zeros(_REQUESTS, 1, groups, _KEYS // block)
    asked = q_idx[:_REQUESTS, None].to(cached)
    pair = (of("q_idx", asked), of("k_idx", k_pages))
    score_pages(asked, k_pages[:, :1], few, **pages, scale=0.1, factors=pair)
    chosen = selection[:_REQUESTS, None]
    forced = {"local_blocks": 1, "sink_blocks": 0}
    select_of_pages(few, chosen, k_lens=pages["k_lens"], block=block, **forced)
    some = slice(0, 4 * _REQUESTS)
    query_outer.attend_pages(
        q[some], k_pages, v_pages, selection[some], out[some], lse[some],
        **pages,
        scale=0.1,
        factors=(of("q", q), of("k", k_pages), of("k", v_pages)),
    )  # fmt: skip
    if q.dtype == E4M3:
        return  # new tokens are not, and gradients neither
    new_k, new_v, new_index = (x[:_REQUESTS, None] for x in (k, v, k_idx))
    put_tokens(
        new_k, new_v, new_index, k_pages, v_pages, k_pages[:, :1],
        **pages,
        factors=(of("k", k_pages), of("k", v_pages), of("k_idx", k_pages)),
    )  # fmt: skip
    differentiate(out, q, k, v, out, lse, selection, **packing, scale=0.1)
    align(q_idx, k_idx, q, k, selection, **packing, scale=0.1, index_scale=0.1)
