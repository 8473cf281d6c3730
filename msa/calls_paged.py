"""The arguments of the operations over a paged cache together, as :mod:`msa.calls` has others."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import checks


def check_paged(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    page_table: Tensor,
    k_lens: Tensor,
    *,
    read: bool = True,
    packed: bool = False,
) -> None:
    """Arguments of ``sparse_decode``; ``packed``: NVFP4 is allowed."""
    _require_pools(q, k_pages, v_pages, packed=packed)
    checks.require_selection(selection, tuple(q.shape[:2]), k_pages.shape[1])
    _require_table(page_table, k_lens, len(q))
    if read:
        _require_lengths(page_table, k_lens, q.shape[1], k_pages)


def check_paged_index(
    q_idx: Tensor,
    index_pages: Tensor,
    page_table: Tensor,
    k_lens: Tensor,
    *,
    read: bool = True,
    packed: bool = False,
) -> None:
    """Arguments of ``paged_block_scores``; ``packed``: NVFP4 is allowed."""
    checks.require_tensor("q_idx", q_idx, ("B", "Q", "Hkv", "Di"), quantized=True)
    groups, dim = q_idx.shape[2:]
    wanted = ("P", "1 or Hkv", "block", dim)
    checks.require_tensor(
        "index_pages", index_pages, wanted, like=q_idx, quantized=True, packed=packed
    )
    if index_pages.shape[1] not in (1, groups):
        raise ValueError(f"index_pages: wanted 1 or {groups} heads, got {checks.came(index_pages)}")
    _require_table(page_table, k_lens, len(q_idx))
    if read:
        _require_lengths(page_table, k_lens, q_idx.shape[1], index_pages)


def check_paged_pipeline(
    q: Tensor,
    q_idx: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    index_pages: Tensor,
    page_table: Tensor,
    k_lens: Tensor,
    *,
    read: bool = True,
    packed: bool = False,
) -> None:
    """Arguments of ``attend_paged``: they belong to one batch and one pool of pages."""
    _require_pools(q, k_pages, v_pages, packed=packed)
    pages, groups, block, _ = k_pages.shape
    checks.require_tensor("q_idx", q_idx, (*q.shape[:2], groups, "Di"), quantized=True)
    check_paged_index(q_idx, index_pages, page_table, k_lens, read=False, packed=packed)
    if (index_pages.shape[0], index_pages.shape[2]) != (pages, block):
        raise ValueError(
            f"index_pages: wanted {pages} pages of {block} tokens, as k_pages, "
            f"got {checks.came(index_pages)}"
        )
    if read:
        _require_lengths(page_table, k_lens, q.shape[1], index_pages)


def check_append(
    k: Tensor,
    v: Tensor,
    k_idx: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    index_pages: Tensor,
    page_table: Tensor,
    k_lens: Tensor,
    factors: tuple[Tensor | None, Tensor | None, Tensor | None],
    *,
    read: bool = True,
) -> None:
    """Arguments of ``append_paged``; ``factors`` are those of pages in E4M3."""
    checks.require_tensor("k", k, ("B", "Q", "Hkv", "D"))
    requests, queries, groups, dim = k.shape
    checks.require_tensor("v", v, tuple(k.shape), like=k)
    checks.require_tensor("k_idx", k_idx, (requests, queries, "1 or Hkv", "Di"))
    wanted: tuple[int | str, ...] = ("P", groups, "block", dim)
    checks.require_tensor("k_pages", k_pages, wanted, like=k, quantized=True)
    checks.require_tensor("v_pages", v_pages, tuple(k_pages.shape), like=k_pages)
    pages, _, block, _ = k_pages.shape
    wanted = (pages, k_idx.shape[2], block, k_idx.shape[3])
    checks.require_tensor("index_pages", index_pages, wanted, like=k_idx, quantized=True)
    for name, pool, factor in zip(
        ("k", "v", "k_idx"), (k_pages, v_pages, index_pages), factors, strict=True
    ):
        checks.require_descale(f"{name}_descale", factor, pool, axis=1, read=read)
    _require_table(page_table, k_lens, requests)
    if read:
        _require_lengths(page_table, k_lens, queries, k_pages)


def _require_pools(q: Tensor, k_pages: Tensor, v_pages: Tensor, *, packed: bool) -> None:
    """Queries of a batch, and the pages of keys and values that they may read."""
    checks.require_tensor("q", q, ("B", "Q", "Hq", "D"), quantized=True)
    wanted = ("P", "Hkv", "block", q.shape[3])
    checks.require_tensor("k_pages", k_pages, wanted, like=q, quantized=True, packed=packed)
    checks.require_tensor("v_pages", v_pages, tuple(k_pages.shape), like=k_pages)
    checks.require_groups(q.shape[2], k_pages.shape[1])


def _require_table(page_table: Tensor, k_lens: Tensor, requests: int) -> None:
    _require_int32("page_table", page_table, f"{requests}, W", 2, requests)
    _require_int32("k_lens", k_lens, f"{requests}", 1, requests)
    if page_table.shape[1] < 1:
        raise ValueError(f"page_table: wanted at least one column, got {checks.came(page_table)}")


def _require_lengths(page_table: Tensor, k_lens: Tensor, queries: int, pages: Tensor) -> None:
    """Each request has its queries' keys, in pages that there are."""
    block = pages.shape[2]
    for b, length in enumerate(k_lens.tolist()):
        count = -(-length // block)
        if length < queries or count > page_table.shape[1]:
            raise ValueError(
                f"k_lens: wanted {queries} to {page_table.shape[1] * block} keys in request "
                f"{b}, got {length}"
            )
        used = page_table[b, :count]
        if count and (int(used.min()) < 0 or int(used.max()) >= len(pages)):
            raise ValueError(
                f"page_table: wanted pages 0 to {len(pages) - 1} in request {b}, "
                f"got {used.tolist()}"
            )


def _require_int32(name: str, x: object, wanted: str, axes: int, rows: int) -> None:
    if not isinstance(x, Tensor) or x.dtype != torch.int32 or x.ndim != axes or len(x) != rows:
        raise ValueError(f"{name}: wanted int32 [{wanted}], got {checks.came(x)}")
