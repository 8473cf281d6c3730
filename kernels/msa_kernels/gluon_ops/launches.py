"""Every launch of an arm on tensors of a shape: for whoever compiles and never runs.

The contents and the results mean nothing. Launchers take CPU tensors here because the
caller has put a compilation in the place of each launch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from msa.packing import cumulative
from msa.quantized import E4M3, NVFP4, output_dtype
from msa_kernels.gluon_ops import attention, decoding, scoring
from msa_kernels.gluon_ops.arms import Arm

_ROWS, _KEYS, _REQUESTS = 256, 4096, 2


def launches(
    arm: Arm,
    *,
    dtype: str,
    heads: int,
    groups: int,
    dim: int,
    block: int,
    topk: int,
    cache_dtype: str = "",
) -> None:
    """Call every launcher of an arm once.

    Args:
        arm: whose.
        dtype: ``float16``, ``bfloat16`` or ``float8_e4m3fn``.
        heads: Hq.
        groups: Hkv.
        dim: D, and Di.
        block: tokens per block.
        topk: blocks kept.
        cache_dtype: of keys, values and index keys, which may be ``float4_e2m1fn_x2``; "" for
            ``dtype``.
    """
    packing: dict[str, Any] = {
        "cu_q": cumulative([_ROWS]),
        "cu_k": cumulative([_KEYS]),
        "block": block,
    }
    q = torch.zeros(_ROWS, heads, dim, dtype=getattr(torch, dtype))
    cached = getattr(torch, cache_dtype or dtype)
    width = dim // (2 if cached == NVFP4 else 1)
    k, v = torch.empty(2, _KEYS, groups, width, dtype=cached)
    selection = torch.zeros(_ROWS, groups, topk, dtype=torch.int32)
    out, lse = torch.zeros_like(q, dtype=output_dtype(q)), torch.zeros(_ROWS, heads)

    def factors(x: Tensor, many: int) -> Tensor | None:
        if x.dtype == NVFP4:
            return torch.zeros(*x.shape[:-1], x.shape[-1] // 8, dtype=E4M3)
        return torch.ones(many) if x.dtype == E4M3 else None

    asked, kept, valued = factors(q, heads), factors(k, groups), factors(v, groups)
    q_idx, k_idx = q[:, :groups].contiguous(), k[:, :1].contiguous()
    scores = torch.zeros(_ROWS, groups, _KEYS // block)
    scoring.score_rows(
        arm, q_idx, k_idx, scores, **packing, scale=0.1,
        factors=(factors(q, groups), factors(k_idx, 1)),
    )  # fmt: skip
    attention.attend_packed(
        arm, q, k, v, selection, out, lse, **packing, scale=0.1, factors=(asked, kept, valued)
    )
    k_pages, v_pages = torch.empty(2, _KEYS // block, groups, block, width, dtype=cached)
    pages: dict[str, Any] = {
        "page_table": torch.zeros(_REQUESTS, _KEYS // block, dtype=torch.int32),
        "k_lens": torch.full((_REQUESTS,), _KEYS, dtype=torch.int32),
    }
    few = torch.zeros(_REQUESTS, 1, groups, _KEYS // block)
    some = slice(0, _REQUESTS)
    index_pages = k_pages[:, :1]
    scoring.score_pages(
        arm, q_idx[some, None], index_pages, few, **pages, scale=0.1,
        factors=(factors(q, groups), factors(index_pages, 1)),
    )  # fmt: skip
    kept, valued = factors(k_pages, groups), factors(v_pages, groups)
    decoding.attend_selected(
        arm, q[some, None], k_pages, v_pages, selection[some, None], out[some, None],
        lse[some, None], **pages, scale=0.1, factors=(asked, kept, valued),
    )  # fmt: skip
