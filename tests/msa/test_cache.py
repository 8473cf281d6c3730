"""The paged cache: decoding row by row equals prefill."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from msa import fast, reference
from msa.cache import PagedCache, decode
from msa.packing import cumulative

BLOCK, TOPK = 8, 3
OPTIONS = {"topk": TOPK, "scale": 0.35, "index_scale": 0.35}


def tokens(length: int, seed: int = 0, index_heads: int = 1) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(length, heads, 6, generator=g) for heads in (4, 2, 2, 2, index_heads))


def make_cache(requests: int = 1, pages: int = 40, index_heads: int = 1) -> PagedCache:
    cache = PagedCache(
        requests=requests,
        pages=pages,
        kv_heads=2,
        dim=6,
        index_dim=6,
        index_heads=index_heads,
        block=BLOCK,
    )
    for store in (cache.k_pages, cache.v_pages, cache.index_pages):
        store.fill_(torch.nan)  # what was never written must never be read
    return cache


@pytest.mark.parametrize("index_heads", [1, 2])
@pytest.mark.parametrize("chunks", [(60,), (13, 3, 20, 1, 23), (8, 16, 36)])
def test_decode_equals_prefill_row_by_row(chunks: tuple[int, ...], index_heads: int) -> None:
    total = sum(chunks) + 30
    q, k, v, q_idx, k_idx = tokens(total, index_heads=index_heads)
    cu = cumulative([total])
    wanted, wanted_ids = reference.attend(
        q, k, v, q_idx, k_idx, cu_q=cu, cu_k=cu, block=BLOCK, **OPTIONS
    )
    cache = make_cache(index_heads=index_heads)
    edges = [0, *torch.tensor(chunks).cumsum(0).tolist(), *range(sum(chunks) + 1, total + 1)]
    for start, stop in pairwise(edges):
        rows = slice(start, stop)
        cache.append(k[rows], v[rows], k_idx[rows], request=0)
        out, lse, ids = decode(cache, q[None, rows], q_idx[None, rows], **OPTIONS)
        assert torch.equal(ids[0], wanted_ids[rows])
        assert (out[0] - wanted[rows]).norm() <= 1e-5 * wanted[rows].norm()
        assert lse.isfinite().all()


def test_requests_of_different_lengths_over_shuffled_pages() -> None:
    cache = make_cache(requests=3)
    data = [tokens(n, seed) for seed, n in enumerate((50, 9, 33))]
    for start in range(0, 50, 5):  # in turn, so that their pages interleave
        for request, (_, k, v, _, k_idx) in enumerate(data):
            rows = slice(start, start + 5)
            if start < len(k):
                cache.append(k[rows], v[rows], k_idx[rows], request=request)
    assert cache.lengths == (50, 9, 33)
    q, q_idx = (torch.stack([d[i][-2:] for d in data]) for i in (0, 3))
    out, _, ids = decode(cache, q, q_idx, **OPTIONS)
    for b, (own_q, k, v, own_q_idx, k_idx) in enumerate(data):
        cu = cumulative([len(k)])
        wanted, wanted_ids = reference.attend(
            own_q, k, v, own_q_idx, k_idx, cu_q=cu, cu_k=cu, block=BLOCK, **OPTIONS
        )
        assert torch.equal(ids[b], wanted_ids[-2:])
        assert (out[b] - wanted[-2:]).norm() <= 1e-5 * wanted[-2:].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sparse_decode_against_the_reference(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(4)
    q = torch.randn(3, 2, 6, 4, generator=g).to(dtype)
    k_pages, v_pages = (torch.randn(20, 2, BLOCK, 4, generator=g).to(dtype) for _ in "kv")
    k_lens = torch.tensor([2, 40, 27], dtype=torch.int32)
    table = torch.randperm(20, generator=g)[:18].view(3, 6).int()
    for b, length in enumerate(k_lens.tolist()):
        used = -(-length // BLOCK)
        for pages in (k_pages, v_pages):
            pages[int(table[b, used - 1]), :, (length - 1) % BLOCK + 1 :] = torch.nan
        table[b, used:] = torch.tensor([2**31 - 1, -7, 99, 5, 5, 5], dtype=torch.int32)[: 6 - used]
    selection = torch.rand(3, 2, 2, 6, generator=g).argsort(-1).int()  # unordered, some unseen
    selection[torch.rand(selection.shape, generator=g) < 0.3] = -1
    selection[1, 0, 1] = -1
    selection[2, 1] = torch.tensor([-(2**31), 3, -1, 0, -5, -1], dtype=torch.int32)
    wanted, wanted_lse = reference.sparse_decode(
        q, k_pages, v_pages, selection, page_table=table, k_lens=k_lens, scale=0.5
    )
    got, lse = fast.sparse_decode(
        q, k_pages, v_pages, selection, page_table=table, k_lens=k_lens, scale=0.5
    )
    assert torch.equal(lse.isinf(), wanted_lse.isinf())
    relative = 1e-2 if dtype == torch.bfloat16 else 1e-5
    assert (got.double() - wanted.double()).norm() <= relative * wanted.double().norm()
    seen = wanted_lse.isfinite()
    assert torch.allclose(lse[seen], wanted_lse[seen], rtol=1e-5, atol=1e-5)
    assert (got[1, 0, 3:] == 0).all()


def test_a_released_request_leaves_nothing_behind() -> None:
    cache = make_cache(requests=2, pages=8)
    _, k, v, _, k_idx = tokens(60)
    cache.append(k, v, k_idx, request=0)
    cache.release(0)
    q, k, v, q_idx, k_idx = tokens(45, seed=5)
    cache.append(k, v, k_idx, request=1)
    both = torch.zeros(2, 1, 4, 6)
    with pytest.raises(ValueError, match="q: wanted 1 to 0 queries for request 0"):
        decode(cache, both, torch.zeros(2, 1, 2, 6), **OPTIONS)
    cache.append(k[:1], v[:1], k_idx[:1], request=0)
    out, _, _ = decode(
        cache, torch.stack([q[:1], q[-1:]]), torch.stack([q_idx[:1], q_idx[-1:]]), **OPTIONS
    )
    cu = cumulative([45])
    wanted, _ = reference.attend(q, k, v, q_idx, k_idx, cu_q=cu, cu_k=cu, block=BLOCK, **OPTIONS)
    assert (out[1, 0] - wanted[-1]).norm() <= 1e-5 * wanted[-1].norm()


def test_a_full_cache_says_so_and_keeps_what_it_had() -> None:
    cache = make_cache(pages=2)
    _, k, v, _, k_idx = tokens(20)
    cache.append(k[:10], v[:10], k_idx[:10], request=0)
    with pytest.raises(ValueError, match=r"pages: wanted 1 free pages for 7 more tokens"):
        cache.append(k[10:17], v[10:17], k_idx[10:17], request=0)
    assert cache.lengths == (10,)
    cache.append(k[10:16], v[10:16], k_idx[10:16], request=0)
    with pytest.raises(ValueError, match="request: wanted 0 to 0, got 1"):
        cache.append(k, v, k_idx, request=1)
    with pytest.raises(ValueError, match=r"k_idx: wanted shape \[20, 1, 6\]"):
        cache.append(k, v, k_idx[:3], request=0)
    with pytest.raises(ValueError, match="index_heads: wanted 1 or 2, got 3"):
        make_cache(index_heads=3)
