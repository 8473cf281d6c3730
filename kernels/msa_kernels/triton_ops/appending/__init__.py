"""New tokens into a paged cache, in one launch: keys, values and index keys, in E4M3 if it is."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls_paged
from msa.quantized import E4M3
from msa_kernels.triton_ops.appending.kernel import append_tokens
from msa_kernels.triton_ops.limits import INTERPRETED, on, require_sizes, require_tensors
from msa_kernels.triton_ops.tiles import FUSION, padded


def append_paged(
    k: Tensor,
    v: Tensor,
    k_idx: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    index_pages: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> None:
    """Write the newest ``Q`` tokens of every request into the pages of a cache, in place.

    As :func:`msa.reference_paged.append_paged`. Nothing waits for a GPU and nothing is allocated:
    captured in a CUDA graph, it follows lengths and page tables that change in place.

    Raises:
        ValueError: a shape, a length or a size that cannot be; the message names it.
        TypeError: a dtype that is not as wanted.
    """
    tensors = (k, v, k_idx, k_pages, v_pages, index_pages)
    factors = (k_descale, v_descale, k_idx_descale)
    calls_paged.check_append(*tensors, page_table, k_lens, factors, read=INTERPRETED)
    require_tensors(
        k=k, v=v, k_idx=k_idx, k_pages=k_pages, v_pages=v_pages, index_pages=index_pages,
        page_table=page_table, k_lens=k_lens,
    )  # fmt: skip
    require_sizes(dim=k.shape[3], block=k_pages.shape[2], index_dim=k_idx.shape[3])
    put_tokens(*tensors, page_table=page_table, k_lens=k_lens, factors=factors)


def put_tokens(
    k: Tensor,
    v: Tensor,
    k_idx: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    index_pages: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    factors: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None),
) -> None:
    """The same of arguments that are known to be right."""
    tensors = (k, v, k_idx, k_pages, v_pages, index_pages)
    requests, queries, groups, dim = k.shape
    index_heads, index_dim = k_idx.shape[2:]
    if not requests * queries:
        return
    with on(k):
        append_tokens[requests * queries, 3](
            k,
            v,
            k_idx,
            *(x.view(torch.uint8) if x.dtype == E4M3 else x for x in tensors[3:]),
            page_table,
            k_lens.contiguous(),
            *(None if x is None else x.contiguous() for x in factors),
            *(stride for x in tensors for stride in x.stride()),
            *page_table.stride(),
            queries,
            GROUPS=groups,
            ROWS=padded(groups, 1),
            DIM=dim,
            DIMS=padded(dim),
            INDEX_HEADS=index_heads,
            INDEX_ROWS=padded(index_heads, 1),
            INDEX=index_dim,
            INDEXES=padded(index_dim),
            BLOCK=k_pages.shape[2],
            num_warps=4,
            **FUSION,
        )
