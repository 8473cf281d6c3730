"""What a worker runs of the subject's own paged cache and measures of recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

#: Fewer than all requests need: the third one gets what the first gave back.
_REQUESTS, _PAGES = 2, 13


def reused(
    inputs: Sequence[Mapping[str, Tensor]], dtype: str, how: Mapping[str, Any]
) -> dict[str, Any]:
    """Three requests in two places: the first ends before the third begins.

    Args:
        inputs: of every request: the newest queries ``[Q, Hq, D]``, all keys and values.
        dtype: of the cache.
        how: block and what :func:`msa.cache.decode` takes.

    Returns:
        ``answers``, out, LSE and selection of every request; ``free`` of ``pages`` in the end.
    """
    from msa.cache import PagedCache, decode

    settings = {name: value for name, value in how.items() if name != "block"}
    _, kv_heads, dim = inputs[0]["k"].shape
    _, index_heads, index_dim = inputs[0]["k_idx"].shape
    cache = PagedCache(
        requests=_REQUESTS,
        pages=_PAGES,
        kv_heads=kv_heads,
        dim=dim,
        index_dim=index_dim,
        block=how["block"],
        index_heads=index_heads,
        dtype=getattr(torch, dtype),
    )
    answers: list[list[Tensor]] = []

    def add(x: Mapping[str, Tensor], place: int) -> None:
        cut = len(x["k"]) // 2 + 1
        for part in (slice(0, cut), slice(cut, None)):
            cache.append(x["k"][part], x["v"][part], x["k_idx"][part], request=place)

    def ask(*asked: Mapping[str, Tensor]) -> list[list[Tensor]]:
        q, q_idx = (torch.stack([x[name] for x in asked]) for name in ("q", "q_idx"))
        found = decode(cache, q, q_idx, **settings)
        return [[part[b] for part in found] for b in range(_REQUESTS)]

    first, second, third = inputs
    add(first, 0)
    add(second, 1)
    answers += ask(first, second)
    cache.release(0)
    add(third, 0)
    answers.append(ask(third, second)[0])
    for place in range(_REQUESTS):
        cache.release(place)
    return {"answers": answers, "free": _room(cache, how["block"]), "pages": _PAGES}


def _room(cache: Any, block: int) -> int:  # noqa: ANN401 - the subject's
    """Pages that can still be filled."""
    _, heads, _, dim = cache.k_pages.shape
    _, index_heads, _, index_dim = cache.index_pages.shape
    k = cache.k_pages.new_zeros(block, heads, dim)
    k_idx = cache.index_pages.new_zeros(block, index_heads, index_dim)
    for count in range(_PAGES + 1):
        try:
            cache.append(k, k, k_idx, request=0)
        except ValueError:
            return count
    return _PAGES + 1


def recalled(
    mass: Tensor, selection: Tensor, positions: Tensor, how: Mapping[str, int]
) -> tuple[Tensor, Tensor]:
    """Mass recall and block recall ``[T, Hkv]``."""
    from msa.recall import block_recall, mass_recall

    return mass_recall(mass, selection), block_recall(mass, selection, positions=positions, **how)
