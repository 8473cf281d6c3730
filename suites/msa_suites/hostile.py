"""The same values in hostile dress: NaN in what nothing reads, shuffled pages, views with gaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from msa.packing import count_blocks, segments
from msa.quantized import E4M3
from msa_suites.inputs import Inputs

_LARGEST = torch.finfo(E4M3).max


@dataclass(frozen=True, slots=True)
class PagedCache:
    """Keys, values and index keys in pages.

    Attributes:
        k_pages: ``[P, Hkv, block, D]``; NaN wherever no token stands.
        v_pages: the same.
        index_pages: ``[P, 1 or Hkv, block, Di]``, likewise.
        page_table: int32 ``[B, W]``; unused entries name a page of NaN.
        k_lens: int32 ``[B]``.
    """

    k_pages: Tensor
    v_pages: Tensor
    index_pages: Tensor
    page_table: Tensor
    k_lens: Tensor


def altered(x: Tensor, where: Any, factor: float) -> Tensor:  # noqa: ANN401 - any index
    """A copy of ``x`` with what ``where`` picks times ``factor``, as far as its dtype reaches."""
    wide = x.float() if x.dtype == E4M3 else x.clone()
    wide[where] = factor * wide[where]
    return wide.clamp(-_LARGEST, _LARGEST).to(E4M3) if x.dtype == E4M3 else wide


def poison_unread(inputs: Inputs, selection: Tensor, block: int) -> Inputs:
    """NaN in every key and value that no query of its group reads.

    Args:
        inputs: what to poison; keys and values are copied.
        selection: int32 ``[Tq, Hkv, k]`` that the attention is given.
        block: tokens per block.
    """
    read = torch.zeros(inputs.k.shape[:2], dtype=torch.bool)
    for s in segments(inputs.cu_q, inputs.cu_k):
        position = torch.arange(s.k_len)
        seen = position <= s.positions()[:, None]  # [t, S]
        for group in range(read.shape[1]):
            chosen = selection[s.q_start : s.q_stop, group]
            kept = torch.zeros(s.q_len, count_blocks(s.k_len, block) + 1, dtype=torch.bool)
            kept.scatter_(1, chosen.long().clamp(min=-1) + 1, value=True)
            mine = (kept[:, position // block + 1] & seen).any(0)
            read[s.k_start : s.k_stop, group] = mine
    return replace(
        inputs, k=altered(inputs.k, ~read, torch.nan), v=altered(inputs.v, ~read, torch.nan)
    )


def page_cache(inputs: Inputs, block: int, *, seed: int = 0) -> PagedCache:
    """Keys, values and index keys of a batch in shuffled pages, with NaN wherever no token stands.

    Page 0 and the last page are unused: an empty entry of a selection that is looked up all the
    same (-1 as an index, or clamped to 0) finds NaN.
    """
    lengths = (inputs.cu_k[1:] - inputs.cu_k[:-1]).tolist()
    pages = [count_blocks(n, block) for n in lengths]
    used = sum(pages)
    order = torch.randperm(used, generator=torch.Generator().manual_seed(seed)) + 1
    packed = (inputs.k, inputs.v, inputs.k_idx)
    stores = [
        torch.full((used + 2, x.shape[1], block, x.shape[2]), torch.nan, dtype=x.dtype)
        for x in packed
    ]
    table = torch.full((len(lengths), max(pages) + 1), used + 1, dtype=torch.int32)
    taken = 0
    for b, s in enumerate(segments(inputs.cu_q, inputs.cu_k)):
        for i in range(pages[b]):
            page = int(order[taken])
            taken += 1
            table[b, i] = page
            rows = slice(s.k_start + i * block, min(s.k_start + (i + 1) * block, s.k_stop))
            count = rows.stop - rows.start
            for x, store in zip(packed, stores, strict=True):
                store[page, :, :count] = x[rows].transpose(0, 1)
    k_pages, v_pages, index_pages = stores
    k_lens = torch.tensor(lengths, dtype=torch.int32)
    return PagedCache(k_pages, v_pages, index_pages, table, k_lens)


def with_gaps(x: Tensor) -> Tensor:
    """The same values as a view with gaps: heads outermost in memory, rows padded with junk."""
    junk = torch.nan if x.is_floating_point() else 2**30
    order = (1, 0, *range(2, x.ndim)) if x.ndim > 2 else (0, 1)
    shape = [x.shape[i] for i in order]
    shape[-1] += 8
    buffer = torch.full(shape, junk, dtype=x.dtype)
    view = buffer[..., : x.shape[-1]].permute(order)
    view.copy_(x)
    return view
