"""Block scores of the index branch."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, calls_paged, checks
from msa.packing import block_columns
from msa_kernels.triton_ops.limits import INTERPRETED, require_sizes, require_tensors
from msa_kernels.triton_ops.scoring.launching import score_pages, score_rows


def block_scores(
    q_idx: Tensor,
    k_idx: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> Tensor:
    """The best visible token score of every key block. Not differentiable.

    A NaN among the visible scores of a block is passed over. The width of the result follows from
    ``cu_k``, which a GPU has to be waited for; :func:`..pipeline.attend` does not need it.

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the token scores, ``Di ** -0.5`` in the paper.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys.

    Returns:
        float32 ``[Tq, Hkv, NB]``; -inf where a block has no visible token.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_index(q_idx, k_idx, cu_q, cu_k, block, read=INTERPRETED)
    check_factors(q_idx, k_idx, q_idx_descale, k_idx_descale)
    checks.require_scale("scale", scale)
    require_tensors(q_idx=q_idx, k_idx=k_idx, cu_q=cu_q, cu_k=cu_k)
    require_sizes(index_dim=q_idx.shape[2], block=block)
    shape = (*q_idx.shape[:2], block_columns(cu_k, block))
    scores = q_idx.new_full(shape, -torch.inf, dtype=torch.float32)
    score_rows(
        q_idx, k_idx, scores, 0, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale,
        factors=(q_idx_descale, k_idx_descale),
    )  # fmt: skip
    return scores


def check_factors(
    q_idx: Tensor, k_idx: Tensor, q_idx_descale: Tensor | None, k_idx_descale: Tensor | None
) -> None:
    """Of index queries ``[.., Hkv, Di]``, and of index keys with their heads on axis 1."""
    calls.check_factors(("q_idx", q_idx, q_idx_descale), axis=-2, read=INTERPRETED)
    calls.check_factors(("k_idx", k_idx, k_idx_descale), read=INTERPRETED)


def paged_block_scores(
    q_idx: Tensor,
    index_pages: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> Tensor:
    """The best visible token score of every block of a cache. Not differentiable.

    Nothing waits for a GPU: the width of the result is that of the page table.

    Args:
        q_idx: index queries ``[B, Q, Hkv, Di]``; the last of a request sits on its last key.
        index_pages: index keys ``[P, 1 or Hkv, block, Di]``, a page holds one block.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the token scores.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys.

    Returns:
        float32 ``[B, Q, Hkv, W]``; -inf where a block has no visible token.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls_paged.check_paged_index(q_idx, index_pages, page_table, k_lens, read=INTERPRETED)
    check_factors(q_idx, index_pages, q_idx_descale, k_idx_descale)
    checks.require_scale("scale", scale)
    require_tensors(q_idx=q_idx, index_pages=index_pages, page_table=page_table, k_lens=k_lens)
    require_sizes(index_dim=q_idx.shape[3], block=index_pages.shape[2])
    shape = (*q_idx.shape[:3], page_table.shape[1])
    scores = q_idx.new_full(shape, -torch.inf, dtype=torch.float32)
    score_pages(
        q_idx, index_pages, scores, page_table=page_table, k_lens=k_lens, scale=scale,
        factors=(q_idx_descale, k_idx_descale),
    )  # fmt: skip
    return scores
