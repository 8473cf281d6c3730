"""Attention of the newest tokens over selected pages of a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa_kernels.triton_ops.attention.query_outer import attend_paged
from msa_kernels.triton_ops.limits import INTERPRETED, require_sizes, require_tensors


def sparse_decode(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention of the newest ``Q`` tokens of every request over selected pages of the cache.

    Reads the selected pages and no others, each query by its own selection; where there are few
    queries the slots of one are split among programs and merged. Not differentiable.

    Args:
        q: ``[B, Q, Hq, D]``; the last query of a request sits on its last key.
        k_pages: ``[P, Hkv, block, D]``, a page holds one block.
        v_pages: ``[P, Hkv, block, D]``.
        selection: int32 ``[B, Q, Hkv, k]``; negative entries are empty, in any place.
        page_table: int32 ``[B, W]``, the page of every block; unused entries may hold anything.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        scale: factor on the logits.

    Returns:
        out ``[B, Q, Hq, D]`` and LSE float32 ``[B, Q, Hq]``.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    calls.check_paged(q, k_pages, v_pages, selection, page_table, k_lens, read=INTERPRETED)
    checks.require_scale("scale", scale)
    require_tensors(
        q=q,
        k_pages=k_pages,
        v_pages=v_pages,
        selection=selection,
        page_table=page_table,
        k_lens=k_lens,
    )
    require_sizes(
        dim=q.shape[3],
        block=k_pages.shape[2],
        topk=selection.shape[3],
        share=q.shape[2] // k_pages.shape[1],
    )
    out = q.new_empty(q.shape)
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    attend_paged(
        q.flatten(0, 1),
        k_pages,
        v_pages,
        selection.flatten(0, 1),
        out.flatten(0, 1),
        lse.flatten(0, 1),
        page_table=page_table,
        k_lens=k_lens,
        scale=scale,
    )
    return out, lse
