"""MiniMax Sparse Attention: scores of key blocks, their selection, attention over the selected.

``IMPLEMENTATION`` says which code the operations are: ``triton``, kernels, where Triton and a
device for it are found; else ``torch``, and ``WHY_NOT_TRITON`` has the reason. What runs is decided
here, once, and nothing falls back: kernels refuse what they cannot run. ``torch_operations`` has
the operations in plain PyTorch for any device, and ``CAPABILITIES`` the limits of those that were
chosen. New tokens are put into pages with Triton only.

The functions with the names of MiniMax's package ``fmha_sm100`` take its arguments and compute in
plain PyTorch.
"""

from __future__ import annotations

from typing import Any

from msa import fast
from msa_kernels import triton_ops
from msa_kernels.compat import (
    build_k2q_csr,
    fmha_sm100,
    fmha_sm100_plan,
    sparse_atten_func,
    sparse_topk_select,
)

__all__ = [
    "CAPABILITIES",
    "IMPLEMENTATION",
    "WHY_NOT_TRITON",
    "attend",
    "attend_paged",
    "block_scores",
    "build_k2q_csr",
    "combine",
    "fmha_sm100",
    "fmha_sm100_plan",
    "index_kl",
    "paged_block_scores",
    "select_blocks",
    "sparse_atten_func",
    "sparse_attention",
    "sparse_attention_backward",
    "sparse_decode",
    "sparse_topk_select",
    "torch_operations",
]

torch_operations = fast
#: None where Triton is used.
WHY_NOT_TRITON: str | None = triton_ops.unavailable()
IMPLEMENTATION = "torch" if WHY_NOT_TRITON else "triton"
_chosen: Any = fast if WHY_NOT_TRITON else triton_ops

CAPABILITIES: dict[str, object] = _chosen.CAPABILITIES
attend = _chosen.attend
attend_paged = _chosen.attend_paged
block_scores = _chosen.block_scores
combine = _chosen.combine
index_kl = _chosen.index_kl
paged_block_scores = _chosen.paged_block_scores
select_blocks = _chosen.select_blocks
sparse_attention = _chosen.sparse_attention
sparse_attention_backward = _chosen.sparse_attention_backward
sparse_decode = _chosen.sparse_decode

if not WHY_NOT_TRITON:
    append_paged = _chosen.append_paged
    __all__ += ["append_paged"]
