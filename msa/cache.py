"""A paged cache of keys, values and index keys, and decoding over it.

A page holds one block of one request. Block scores are computed from the index keys themselves at
every step: there is no pooled maximum that could go stale when a block fills up token by token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msa import checks
from msa.fast.decoding import sparse_decode
from msa.fast.scoring import score_rows, working_dtype
from msa.fast.selecting import select_rows
from msa.packing import count_blocks


class PagedCache:
    """Keys, values and index keys of several requests.

    Args:
        requests: number of requests, B.
        pages: pages in all, P, shared by the requests.
        kv_heads: KV heads, Hkv.
        dim: width of a key and of a value, D.
        index_dim: width of an index key, Di.
        index_heads: 1, or one index key head per KV head.
        block: tokens per page.
        dtype: of everything stored.
        device: where it is stored.

    Attributes:
        k_pages: ``[P, Hkv, block, D]``; slots that were never written hold anything.
        v_pages: ``[P, Hkv, block, D]``.
        index_pages: ``[P, Hi, block, Di]``.
        page_table: int32 ``[B, P]``, the page of every block; -1 where there is none.
        k_lens: int32 ``[B]``.

    Raises:
        ValueError: a size below one, or a number of index heads that is neither 1 nor Hkv.
        TypeError: a dtype that is not floating.
    """

    def __init__(
        self,
        *,
        requests: int,
        pages: int,
        kv_heads: int,
        dim: int,
        index_dim: int,
        index_heads: int = 1,
        block: int = 128,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in (
            ("requests", requests),
            ("pages", pages),
            ("kv_heads", kv_heads),
            ("dim", dim),
            ("index_dim", index_dim),
            ("block", block),
        ):
            checks.require_positive(name, value)
        checks.require_positive("index_heads", index_heads)
        if dtype not in checks.FLOATS:
            raise TypeError(f"dtype: wanted a floating dtype, got {dtype!r}")
        if index_heads not in (1, kv_heads):
            raise ValueError(f"index_heads: wanted 1 or {kv_heads}, got {index_heads!r}")
        self.block = block
        self.k_pages = torch.empty((pages, kv_heads, block, dim), dtype=dtype, device=device)
        self.v_pages = torch.empty_like(self.k_pages)
        self.index_pages = torch.empty(
            (pages, index_heads, block, index_dim), dtype=dtype, device=device
        )
        self.page_table = torch.full((requests, pages), -1, dtype=torch.int32, device=device)
        self.k_lens = torch.zeros(requests, dtype=torch.int32, device=device)
        self._lengths = [0] * requests
        self._free = list(range(pages - 1, -1, -1))  # the lowest page is taken first

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of every request."""
        return tuple(self._lengths)

    def _require_request(self, request: int) -> None:
        if not checks.is_whole(request) or not 0 <= request < len(self._lengths):
            raise ValueError(f"request: wanted 0 to {len(self._lengths) - 1}, got {request!r}")

    def append(self, k: Tensor, v: Tensor, k_idx: Tensor, *, request: int) -> None:
        """Add the newest tokens of a request: a prompt, a chunk of it, or one token.

        Args:
            k: ``[n, Hkv, D]``.
            v: ``[n, Hkv, D]``.
            k_idx: index keys ``[n, Hi, Di]``.
            request: which one.

        Raises:
            ValueError: a wrong shape, no such request, or too few free pages; nothing is added.
            TypeError: another dtype than the cache's.
        """
        self._require_request(request)
        _, heads, _, dim = self.k_pages.shape
        checks.require_tensor("k", k, ("T", heads, dim), like=self.k_pages)
        count = len(k)
        for name, x, store in (
            ("v", v, self.v_pages),
            ("k_idx", k_idx, self.index_pages),
        ):
            checks.require_tensor(name, x, (count, store.shape[1], store.shape[3]), like=store)
        length = self._lengths[request]
        have, need = count_blocks(length, self.block), count_blocks(length + count, self.block)
        if need - have > len(self._free):
            raise ValueError(
                f"pages: wanted {need - have} free pages for {count} more tokens of request "
                f"{request}, got {len(self._free)} of {len(self.k_pages)}"
            )
        taken = [self._free.pop() for _ in range(need - have)]
        self.page_table[request, have:need] = torch.tensor(taken, dtype=torch.int32)
        at = torch.arange(length, length + count, device=self.k_pages.device)
        page, slot = self.page_table[request][at // self.block].long(), at % self.block
        for x, store in ((k, self.k_pages), (v, self.v_pages), (k_idx, self.index_pages)):
            store[page, :, slot] = x.detach()
        self._lengths[request] += count
        self.k_lens[request] += count

    def release(self, request: int) -> None:
        """Forget a request; its pages are free again.

        Raises:
            ValueError: no such request.
        """
        self._require_request(request)
        used = count_blocks(self._lengths[request], self.block)
        self._free.extend(reversed(self.page_table[request, :used].tolist()))
        self.page_table[request] = -1
        self._lengths[request] = 0
        self.k_lens[request] = 0

    def index_keys(self, request: int) -> Tensor:
        """Index keys of a request ``[Hi, S, Di]``, S rounded up to whole pages.

        A view where the request's pages follow each other and the dtype needs no change.

        Raises:
            ValueError: no such request.
        """
        self._require_request(request)
        used = count_blocks(self._lengths[request], self.block)
        pages = self.page_table[request, :used].long()
        if used and bool((pages == torch.arange(used, device=pages.device) + pages[0]).all()):
            found = self.index_pages[int(pages[0]) : int(pages[0]) + used]
        else:
            found = self.index_pages[pages]
        return found.to(working_dtype(found)).transpose(0, 1).flatten(1, 2)


@torch.no_grad()
def decode(
    cache: PagedCache,
    q: Tensor,
    q_idx: Tensor,
    *,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
    scale: float,
    index_scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of every request: score the cached blocks, select, attend to the selected pages.

    The keys of the queries' own tokens are already in the cache. Scores grow with the cache;
    selection and attention do not.

    Args:
        cache: at least Q tokens in every request.
        q: ``[B, Q, Hq, D]``, the newest Q tokens of every request.
        q_idx: index queries ``[B, Q, Hkv, Di]``.
        topk: blocks kept.
        local_blocks: newest blocks that are always kept.
        sink_blocks: first blocks that are always kept.
        scale: factor on the logits.
        index_scale: factor on the index scores.

    Returns:
        out ``[B, Q, Hq, D]``, LSE float32 ``[B, Q, Hq]`` and the selection int32
        ``[B, Q, Hkv, topk]``.

    Raises:
        ValueError: a wrong shape or scale, a budget below the forced blocks, a request with too few
            tokens.
        TypeError: another dtype than the cache's.
    """
    checks.require_budget(topk, local_blocks, sink_blocks)
    checks.require_scale("scale", scale)
    checks.require_scale("index_scale", index_scale)
    requests, kv_heads = len(cache.lengths), cache.k_pages.shape[1]
    checks.require_tensor("q", q, (requests, "Q", "Hq", cache.k_pages.shape[3]), like=cache.k_pages)
    steps = q.shape[1]
    checks.require_tensor(
        "q_idx", q_idx, (requests, steps, kv_heads, cache.index_pages.shape[3]), like=q
    )
    selection = torch.empty((requests, steps, kv_heads, topk), dtype=torch.int32, device=q.device)
    for b, length in enumerate(cache.lengths):
        if length < steps or not steps:
            raise ValueError(f"q: wanted 1 to {length} queries for request {b}, got {steps}")
        first = length - steps
        local = torch.arange(first, length, device=q.device) // cache.block
        scores = score_rows(q_idx[b], cache.index_keys(b), first, cache.block, index_scale)
        selection[b] = select_rows(scores, local, topk, local_blocks, sink_blocks)
    out, lse = sparse_decode(
        q,
        cache.k_pages,
        cache.v_pages,
        selection,
        page_table=cache.page_table,
        k_lens=cache.k_lens,
        scale=scale,
    )
    return out, lse, selection
