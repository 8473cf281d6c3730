"""Faults of the paged cache, of its index keys, and of prompts that are read in chunks."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from msa_suites.faults.table import Given, fault, wrapping

_APPEND = "msa.cache.PagedCache.append"
_INDEX = "msa.cache.PagedCache.index_keys"
_METHOD = "method:cache"


@fault("cache", _METHOD, seen="ATOM#1368", cause="index keys are not stored")
@wrapping(_APPEND)
def index_keys_not_stored(
    right: Given, self: Given, k: Tensor, v: Tensor, k_idx: Tensor, *, request: int
) -> Given:
    """Keys and values are stored, index keys are not: invisible up to k * Bk tokens."""
    return right(self, k, v, torch.zeros_like(k_idx), request=request)


@fault("cache", _METHOD, seen="ATOM#1368", cause="arrive a page late")
@wrapping(_INDEX)
def newest_index_keys_missing(right: Given, self: Given, request: int) -> Tensor:
    """Index keys arrive one page late: the local block hides it, the block before it does not."""
    keys: Tensor = right(self, request).clone()
    late = (self.lengths[request] // self.block - 1) * self.block
    keys[:, max(late, 0) :] = 0
    return keys


@fault("cache", _METHOD, cause="lag one page")
@wrapping(_INDEX)
def index_keys_of_the_page_before(right: Given, self: Given, request: int) -> Given:
    """The index cache lags one page behind the keys."""
    return right(self, request).roll(self.block, 1)


@fault("cache", _METHOD, seen="sglang-jax#1376", cause="wipes the index keys")
@wrapping(_APPEND)
def chunk_wipes_the_block_it_starts_in(
    right: Given, self: Given, k: Tensor, v: Tensor, k_idx: Tensor, *, request: int
) -> Given:
    """A chunk that starts inside a block loses the index keys that were there."""
    length = self.lengths[request]
    inside = length % self.block
    if inside:
        self.index_pages[int(self.page_table[request, length // self.block]), :, :inside] = 0
    return right(self, k, v, k_idx, request=request)


@fault("cache", _METHOD)
@wrapping(_APPEND)
def keys_stored_one_slot_late(
    right: Given, self: Given, k: Tensor, v: Tensor, k_idx: Tensor, *, request: int
) -> Given:
    """Keys of a chunk go one slot too far; values do not."""
    return right(self, k.roll(1, 0), v, k_idx, request=request)


@fault("cache", _METHOD)
@wrapping("msa.cache.PagedCache.release")
def released_pages_stay_in_use(right: Given, self: Given, request: int) -> Given:
    """A released request leaves its first page in the free list twice: two requests share it."""
    first = int(self.page_table[request, 0])
    right(self, request)
    if first >= 0:
        self._free.append(first)


@fault("cache", _METHOD, seen="sglang#31133", cause="stale length")
@wrapping(_INDEX)
def scores_of_a_stale_length(right: Given, self: Given, request: int) -> Tensor:
    """Scores are sized by the shortest request: later blocks of the others never win."""
    keys: Tensor = right(self, request).clone()
    keys[:, min(self.lengths) :] = -100
    return keys


@fault("cache", "correctness:decode-several", cause="page table of the first")
@wrapping("msa.fast.paged.paged_block_scores")
def index_pages_of_the_first_request(
    right: Given, *tensors: Tensor, page_table: Tensor, **rest: Given
) -> Given:
    """The page table of request 0 serves the scores of all requests."""
    return right(*tensors, page_table=page_table[:1].expand_as(page_table), **rest)


@fault("cache", "correctness:decode-several", seen="fla#417", cause="taken for its newest")
@wrapping("msa.fast.paged.paged_block_scores")
def every_index_query_stands_on_the_last_key(
    right: Given, q_idx: Tensor, *rest: Tensor, page_table: Tensor, k_lens: Tensor, **more: Given
) -> Given:
    """Several index queries of a request are all scored up to its last key."""
    steps = q_idx.shape[1]
    parts = [
        right(q_idx[:, i : i + 1], *rest, page_table=page_table, k_lens=k_lens, **more)
        for i in range(steps)
    ]
    return torch.cat(parts, 1)


@fault("cache", "correctness:decode-several", seen="fla#417", cause="taken for its newest")
@wrapping("msa.fast.decoding.sparse_decode")
def every_query_stands_on_the_last_key(
    right: Given,
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    selection: Tensor,
    *,
    page_table: Tensor,
    k_lens: Tensor,
    scale: float,
) -> Given:
    """Several queries of a request all see up to its last key."""
    batch, steps = q.shape[:2]
    out, lse = right(
        q.flatten(0, 1)[:, None],
        k_pages,
        v_pages,
        selection.flatten(0, 1)[:, None],
        page_table=page_table.repeat_interleave(steps, 0),
        k_lens=k_lens.repeat_interleave(steps, 0),
        scale=scale,
    )
    return out.view(batch, steps, *out.shape[2:]), lse.view(batch, steps, -1)


@fault("cache", "correctness:decode-batch", cause="sequences 32 to 39 of the batch never written")
@wrapping("msa.fast.decoding.sparse_decode")
def requests_beyond_32_unwritten(right: Given, *args: Given, **kwargs: Given) -> Given:
    """A batch is taken in parts, and only the first is written."""
    out, lse = right(*args, **kwargs)
    out[32:] = 0
    return out, lse


@fault("cache", "method:retrofit_chunks")
@wrapping("msa.padding.plan_packing")
def chunks_start_at_position_zero(right: Given, *args: Given) -> Given:
    """A later chunk of a prompt sees only as many keys as it has queries."""
    plan = right(*args)
    if plan.k_index is None:
        return plan
    batch, slot = plan.k_index
    lengths, asked = plan.cu_k.diff(), plan.cu_q.diff()
    nth = torch.arange(len(batch)) - plan.cu_k[batch].long()
    kept = nth < asked[batch]
    return dataclasses.replace(
        plan, cu_k=plan.cu_q, k_index=(batch[kept], slot[kept])
    ) if bool((lengths > asked).any()) else plan  # fmt: skip


@fault("cache", "method:retrofit_padding")
@wrapping("msa.padding.pack")
def values_of_padding_slots(right: Given, x: Tensor, index: Given) -> Given:
    """Real tokens are gathered one slot too early."""
    if index is not None:
        index = (index[0], (index[1] - 1).clamp_min(0))
    return right(x, index)


@fault("cache", "method:retrofit_padding", "method:retrofit_chunks")
@wrapping("msa.retrofit_attention.Active.packing")
def packing_of_the_first_batch_kept(
    right: Given, self: Given, mask: Given, query: Tensor, key: Tensor
) -> Given:
    """The plan of a batch is remembered by its shape and used for other masks of that shape."""
    known = _PLANS.setdefault(id(type(self)), {})
    shape = (query.shape[2], key.shape[2], len(query))
    return known.setdefault(shape, right(self, mask, query, key))


@fault("cache", "method:cache_variants")
@wrapping("msa.cache.PagedCache.index_keys")
def first_index_head_serves_all_groups(right: Given, cache: Given, request: int) -> Tensor:
    """With an index head a group, all groups are scored by the first."""
    found: Tensor = right(cache, request)
    return found[:1]


@fault("memory", "method:cache_variants")
@wrapping("msa.cache.PagedCache.release")
def a_page_lost_in_every_release(right: Given, cache: Given, request: int) -> None:
    """One page of a request that ends is never free again: the pool runs dry after a while."""
    had = cache.lengths[request]
    right(cache, request)
    if had:
        cache._free.pop()


@fault("cache", "method:cache_variants")
@wrapping("msa.fast.decoding.sparse_decode")
def scale_of_the_cache_assumed(right: Given, q: Tensor, *rest: Given, **more: Given) -> Given:
    """Decoding over the cache takes the root of the width for the scale it was given."""
    return right(q, *rest, **{**more, "scale": q.shape[-1] ** -0.5})


_PLANS: dict[int, dict[tuple[int, int, int], Given]] = {}
