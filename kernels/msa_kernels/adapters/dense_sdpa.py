"""The control: dense causal attention of PyTorch, one call per sequence.

It looks at no index branch and selects nothing, so it is not MSA: it is what MSA is timed against,
and what keep-all MSA must equal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from msa.packing import segments

CAPABILITIES: dict[str, object] = {
    "dtypes": ["float32", "float16", "bfloat16", "float64"],
    "devices": ["cpu", "cuda"],
    "layouts": ["packed"],
    "selects": False,
}


def dense(q: Tensor, k: Tensor, v: Tensor, *, cu_q: Tensor, cu_k: Tensor, scale: float) -> Tensor:
    """Causal attention over whole sequences.

    Args:
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        scale: factor on the logits.

    Returns:
        ``[Tq, Hq, D]`` in q's dtype.
    """
    parts = []
    for s in segments(cu_q, cu_k):
        rows, keys = slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop)
        mask = None
        if s.first_position and s.q_len > 1:
            # is_causal aligns to the top left; a chunk sits at the bottom right.
            mask = torch.arange(s.k_len, device=q.device) <= s.positions(q.device)[:, None]
        out = functional.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k[keys].transpose(0, 1)[None],
            v[keys].transpose(0, 1)[None],
            attn_mask=mask,
            is_causal=s.first_position == 0 and s.q_len > 1,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        parts.append(out[0].transpose(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_idx: Tensor,
    k_idx: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
    scale: float,
    index_scale: float,
) -> tuple[Tensor, None]:
    """:func:`dense` with the arguments of the whole pipeline; it selects nothing."""
    del q_idx, k_idx, block, topk, local_blocks, sink_blocks, index_scale
    return dense(q, k, v, cu_q=cu_q, cu_k=cu_k, scale=scale), None
