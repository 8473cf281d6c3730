"""The exact work of the subject's paged cache, counted in its own process.

A cache that holds much and gets little shows what is copied besides: the pool, the page table, the
index keys of a request.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from msa_harness.memory import memory_of
from msa_suites.speed.counting import counted

#: Tokens in the cache, sizes of its entries: those of the timed shapes. Half their budget: what is
#: taken of the selected pages must not hide a copy of all index keys.
_TOKENS, _BLOCK, _KV_HEADS, _HEADS, _DIM, _TOPK = 8192, 128, 2, 8, 64, 8


def count_cache() -> dict[str, int]:
    """Bytes of a token appended to a page, to a new one, and decoded; operations of the latter."""
    from msa.cache import PagedCache, decode

    torch.manual_seed(0)
    cache: Any = PagedCache(
        requests=1,
        pages=_TOKENS // _BLOCK + 3,
        kv_heads=_KV_HEADS,
        dim=_DIM,
        index_dim=_DIM,
        block=_BLOCK,
    )

    def append(tokens: int) -> None:
        keys, values = torch.randn(2, tokens, _KV_HEADS, _DIM)
        cache.append(keys, values, torch.randn(tokens, 1, _DIM), request=0)

    append(_TOKENS)
    append(1)  # the first of a page
    step = partial(
        decode,
        cache,
        torch.randn(1, 1, _HEADS, _DIM),
        torch.randn(1, 1, _KV_HEADS, _DIM),
        topk=_TOPK,
        scale=_DIM**-0.5,
        index_scale=_DIM**-0.5,
    )
    step()
    used = {"append": memory_of(partial(append, 1)), "decode": memory_of(step)}
    counts = {"flops/cache-decode": counted(step)}
    append(_BLOCK - 2)  # with the two that are there, a whole page
    used["append-page"] = memory_of(partial(append, 1))
    for name, memory in used.items():
        counts |= {f"peak_bytes/cache-{name}": memory.peak, f"held_bytes/cache-{name}": memory.held}
    return counts
