"""The specification of MSA: short, slow, in float64, one function per operation.

Nothing here is clever. Every fast implementation is judged against these functions, so each
follows the definition word for word: token scores, causal mask per token, maximum per block,
forced blocks, top-k, exact softmax over the visible tokens of the selected blocks (the paper,
section 3). Shapes, packing and conventions are those of :mod:`msa.packing`. Each operation stands
in the ``reference_*`` module that it comes from; this is the implementation ``reference``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from msa import calls, checks
from msa.reference_attention import combine, sparse_attention
from msa.reference_backward import sparse_attention_backward
from msa.reference_index_kl import index_kl
from msa.reference_paged import attend_paged, paged_block_scores, sparse_decode
from msa.reference_selection import block_scores, select_blocks

__all__ = [
    "CAPABILITIES",
    "attend",
    "attend_paged",
    "block_scores",
    "combine",
    "index_kl",
    "paged_block_scores",
    "select_blocks",
    "sparse_attention",
    "sparse_attention_backward",
    "sparse_decode",
]

CAPABILITIES: dict[str, object] = {
    "dtypes": ["float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float4_e2m1fn_x2"],
    "devices": ["cpu", "cuda"],
    "layouts": ["packed", "paged"],
    "nan_scores": True,
    "tie_rule": "lower block first",
    "sink_blocks": True,
    "exact_scores": True,
}


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
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The whole of MSA: scores, selection, attention. Returns (out, selection)."""
    calls.check_pipeline(q, k, v, q_idx, k_idx, cu_q, cu_k, packed=True)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    tensors = {"q": q, "k": k, "v": v, "q_idx": q_idx, "k_idx": k_idx}
    scales = {"k": k_descale, "v": v_descale, "k_idx": k_idx_descale}
    for name, x in calls.may_hold_nan(tensors, scales):
        checks.require_finite(name, x)
    lengths: dict[str, Any] = {"cu_q": cu_q, "cu_k": cu_k, "block": block}
    scores = block_scores(
        q_idx, k_idx, **lengths, scale=index_scale,
        q_idx_descale=q_idx_descale, k_idx_descale=k_idx_descale,
    )  # fmt: skip
    selection = select_blocks(
        scores,
        **lengths,
        topk=topk,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
    )
    out, _ = sparse_attention(
        q, k, v, selection, **lengths, scale=scale,
        q_descale=q_descale, k_descale=k_descale, v_descale=v_descale,
    )  # fmt: skip
    return out, selection
