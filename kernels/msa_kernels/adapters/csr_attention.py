"""Attention by MiniMax's ``sparse_atten_func``: the selection turned round into lists of queries.

Shared by the package ``fmha_sm100`` and by the Hub kernel ``MiniMaxAI/msa``, which export the two
functions with the same arguments (MiniMax-AI/MSA, python/fmha_sm100/cute/interface.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from msa.calls import check_attention
from msa.packing import count_blocks
from msa_kernels.adapters import converting

#: Tokens of a block, and the channels of a head: the only ones that it is built for.
BLOCK = DIM = 128
#: Slots of a selection that it is built for.
WIDTHS = (4, 8, 16, 32)
GROUPS = (1, 2, 4, 8, 16)


def attend_selected(
    api: Any,  # noqa: ANN401 - a module that is not installed where this is checked
    q: Tensor,
    k: Tensor,
    v: Tensor,
    selection: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """``sparse_attention`` of the contract.

    Args:
        api: has ``build_k2q_csr`` and ``sparse_atten_func``.
        q: bfloat16 ``[Tq, Hq, 128]``.
        k: bfloat16 ``[Tk, Hkv, 128]``.
        v: like ``k``.
        selection: int32 ``[Tq, Hkv, k]``, k up to 32: a row may hold fewer, or none.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: 128.
        scale: factor on the logits.

    Returns:
        out ``[Tq, Hq, 128]`` and the natural log-sum-exp float32 ``[Tq, Hq]``.

    Raises:
        ValueError: sizes that it is not built for, or that do not fit together.
    """
    check_attention(q, k, v, selection, cu_q, cu_k, block)
    require_sizes(block=block, dim=q.shape[2])
    if not len(q) or not len(k):
        return torch.zeros_like(q), q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)
    chosen = converting.heads_first(converting.widened(selection, WIDTHS))
    lens = converting.lengths(cu_k).tolist()
    sizes = {
        "max_seqlen_q": converting.longest(cu_q),
        "max_seqlen_k": max(lens),
    }
    row_ptr, rows, schedule = api.build_k2q_csr(
        chosen,
        cu_q,
        cu_k,
        BLOCK,
        total_k=len(k),
        total_rows=sum(count_blocks(n, BLOCK) for n in lens),
        qhead_per_kv=q.shape[1] // k.shape[1],
        return_schedule=True,
        **sizes,
    )
    # Its causal flag is off unless it is asked for.
    out, lse = api.sparse_atten_func(
        *(x.contiguous() for x in (q, k, v)),
        row_ptr,
        rows,
        chosen.shape[-1],
        cu_seqlens_q=cu_q,
        cu_seqlens_k=cu_k,
        blk_kv=BLOCK,
        causal=True,
        softmax_scale=scale,
        return_softmax_lse=True,
        schedule=schedule,
        **sizes,
    )
    return out, lse


def require_sizes(*, block: int, dim: int) -> None:
    """Refuse what the kernels would read wrongly.

    Raises:
        ValueError: another block or head dim than 128.
    """
    if block != BLOCK:
        raise ValueError(f"block: wanted {BLOCK}, all that it is built for, got {block}")
    if dim != DIM:
        raise ValueError(f"q, q_idx: wanted a head dim of {DIM}, got {dim}")
