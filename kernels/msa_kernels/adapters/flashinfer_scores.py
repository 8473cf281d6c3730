"""What begins with FlashInfer's block scores, which it has for compute capability 12.x only.

Asked for through ``flashinfer_msa``, which has these operations on such a device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msa.calls import check_index
from msa.calls_paged import check_paged_index
from msa.packing import block_columns
from msa_kernels.adapters import composing, converting, flashinfer_msa
from msa_kernels.adapters.flashinfer_calls import api, require_sizes, steps


def block_scores(
    q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
) -> Tensor:
    """Block scores by ``msa_proxy_score``.

    Args:
        q_idx: float16 or bfloat16 ``[Tq, Hkv, 128]``.
        k_idx: like it, ``[Tk, 1 or Hkv, 128]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: 128.
        scale: factor on the maxima, above 0.

    Returns:
        float32 ``[Tq, Hkv, NB]``, -inf where nothing is visible.

    Raises:
        TypeError: another dtype.
        ValueError: sizes that it is not built for, or that do not fit together.
    """
    check_index(q_idx, k_idx, cu_q, cu_k, block, quantized=False)
    require_sizes(block, q_idx=q_idx, k_idx=k_idx)
    factor, columns = converting.above_zero(scale), block_columns(cu_k, block)
    if not len(q_idx):
        return q_idx.new_empty((0, q_idx.shape[1], columns), dtype=torch.float32)
    maxima: Tensor = api().msa_proxy_score(
        q_idx.contiguous(),
        k_idx.contiguous(),
        cu_q,
        cu_k,
        causal=True,
        max_k_tiles=columns,
        reduce_heads=False,
    )
    return (maxima * factor).permute(2, 0, 1)


def paged_block_scores(
    q_idx: Tensor, index_pages: Tensor, *, page_table: Tensor, k_lens: Tensor, scale: float
) -> Tensor:
    """Block scores of a cache by ``msa_proxy_score``, for the newest tokens.

    Args:
        q_idx: float16 or bfloat16 ``[B, Q, Hkv, 128]``.
        index_pages: like it, ``[P, 1 or Hkv, 128, 128]``, heads before tokens.
        page_table: int32 ``[B, W]``.
        k_lens: int32 ``[B]``.
        scale: factor on the maxima, above 0.

    Returns:
        float32 ``[B, Q, Hkv, W]``, -inf where nothing is visible.

    Raises:
        TypeError: another dtype.
        ValueError: sizes that it is not built for, or that do not fit together.
    """
    check_paged_index(q_idx, index_pages, page_table, k_lens)
    require_sizes(index_pages.shape[2], q_idx=q_idx, index_pages=index_pages)
    factor = converting.above_zero(scale)
    maxima: Tensor = api().msa_proxy_score(
        q_idx.flatten(0, 1).contiguous(),
        index_pages.contiguous(),
        steps(q_idx),
        page_table=page_table.contiguous(),
        seqused_k=k_lens,
        causal=True,
        max_seqlen_q=q_idx.shape[1],
        max_k_tiles=page_table.shape[1],
        reduce_heads=False,
    )
    return (maxima * factor).permute(2, 0, 1).view(*q_idx.shape[:3], -1)


#: Scores, selection and attention; arguments and results of the contract.
attend = composing.one_after_the_other(
    block_scores, flashinfer_msa.select_blocks, flashinfer_msa.sparse_attention
)


def attend_paged(
    q: Tensor,
    q_idx: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    index_pages: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
    scale: float,
    index_scale: float,
) -> tuple[Tensor, Tensor]:
    """The same for the newest tokens over a cache; arguments and results of the contract.

    Raises:
        TypeError, ValueError: as they do.
    """
    scores = paged_block_scores(
        q_idx, index_pages, page_table=page_table, k_lens=k_lens, scale=index_scale
    )
    selection = flashinfer_msa.select_blocks(
        scores.flatten(0, 1),
        cu_q=steps(q),
        cu_k=converting.cumulated(k_lens),
        block=index_pages.shape[2],
        topk=topk,
        local_blocks=local_blocks,
        sink_blocks=sink_blocks,
    ).unflatten(0, q.shape[:2])
    out, _ = flashinfer_msa.sparse_decode(
        q, k_pages, v_pages, selection, page_table=page_table, k_lens=k_lens, scale=scale
    )
    return out, selection
