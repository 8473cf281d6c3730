"""The implementation ``triton``: the operations of MSA as Triton kernels, a package for each.

On a GPU, or on a CPU under Triton's interpreter (TRITON_INTERPRET=1), which is how their logic is
tested. Launchers wait for no device, but for the width of ``block_scores``' result; so what the
lengths and pages of a GPU hold is not looked at: values that cannot be, which a CPU's are refused
for, are undefined there. This module imports without triton; then it has no operation and
:func:`unavailable` says why.
"""

from __future__ import annotations

from importlib.util import find_spec

_FOUND = find_spec("triton") is not None

if _FOUND:
    from msa_kernels.triton_ops import limits
    from msa_kernels.triton_ops.appending import append_paged
    from msa_kernels.triton_ops.attention import sparse_attention
    from msa_kernels.triton_ops.backward import sparse_attention_backward
    from msa_kernels.triton_ops.combining import combine
    from msa_kernels.triton_ops.decoding import attend_paged, sparse_decode
    from msa_kernels.triton_ops.index_loss import index_kl
    from msa_kernels.triton_ops.launches import launches
    from msa_kernels.triton_ops.limits import CAPABILITIES
    from msa_kernels.triton_ops.pipeline import attend
    from msa_kernels.triton_ops.scoring import block_scores, paged_block_scores
    from msa_kernels.triton_ops.selecting import select_blocks

__all__ = [
    "CAPABILITIES",
    "append_paged",
    "attend",
    "attend_paged",
    "block_scores",
    "combine",
    "index_kl",
    "launches",
    "paged_block_scores",
    "select_blocks",
    "sparse_attention",
    "sparse_attention_backward",
    "sparse_decode",
    "unavailable",
]


def unavailable() -> str | None:
    """Why it cannot run here, or None."""
    return limits.unavailable() if _FOUND else "wanted triton >= 3.6 (extra `triton`), got none"
