"""The fast path of MSA in plain PyTorch: the operations of :mod:`msa.reference`, tiled for a CPU.

Same names, same signatures, same results within the pass rule. Attention of tensors on other
devices is that of :mod:`msa.fast.small`, whatever the block.
"""

from __future__ import annotations

from msa.fast.attention import sparse_attention
from msa.fast.backward import sparse_attention_backward
from msa.fast.combining import combine
from msa.fast.decoding import sparse_decode
from msa.fast.index_loss import index_kl
from msa.fast.paged import attend_paged, paged_block_scores
from msa.fast.pipeline import attend
from msa.fast.scoring import block_scores
from msa.fast.selecting import select_blocks
from msa.fast.threads import settle_vector_math

settle_vector_math()

CAPABILITIES: dict[str, object] = {
    "dtypes": ["float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "float4_e2m1fn_x2"],
    "devices": ["cpu", "cuda"],
    "layouts": ["packed", "paged"],
    "nan_scores": True,
    "tie_rule": "lower block first",
    "sink_blocks": True,
    "exact_scores": True,
}

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
