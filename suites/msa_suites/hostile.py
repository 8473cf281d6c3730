"""The same values in hostile dress: NaN in what nothing reads, shuffled pages, views with gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from msa import nvfp4
from msa.packing import count_blocks, segments
from msa.quantized import E4M3, NVFP4
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
        scales: of pages in NVFP4, E4M3 ``[P, heads, block, d / 16]`` by the tensor's name; there
            NaN is in them.
    """

    k_pages: Tensor
    v_pages: Tensor
    index_pages: Tensor
    page_table: Tensor
    k_lens: Tensor
    scales: dict[str, Tensor]

    def factors(self, inputs: Inputs, *names: str) -> dict[str, Tensor]:
        """The keywords of an operation: :meth:`Inputs.factors`, with scales as the pages lie."""
        return inputs.factors(*names) | {
            f"{name}_descale": self.scales[name] for name in names if name in self.scales
        }


def altered(inputs: Inputs, where: Mapping[str, Any], factor: float) -> Inputs:
    """The same with parts of tensors times ``factor``, as far as their dtypes reach.

    Args:
        inputs: what to alter; tensors are copied.
        where: an index into each of the tensors by its name.
        factor: NaN is one; in NVFP4 it is in the scales.
    """
    found, factors = {}, dict(inputs.descales)
    for name, index in where.items():
        x: Tensor = getattr(inputs, name)
        wide = inputs.meant(name) if x.dtype == NVFP4 else x.float() if x.dtype == E4M3 else x
        wide = wide.clone()
        wide[index] = factor * wide[index]
        if x.dtype == NVFP4:
            # What was not altered gets its own bytes again.
            found[name], factors[name] = nvfp4.quantize(wide)
        else:
            found[name] = wide.clamp(-_LARGEST, _LARGEST).to(E4M3) if x.dtype == E4M3 else wide
    return replace(inputs, **found, descales=factors)


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
    return altered(inputs, {"k": ~read, "v": ~read}, torch.nan)


def page_cache(inputs: Inputs, block: int, *, seed: int = 0) -> PagedCache:
    """Keys, values and index keys of a batch in shuffled pages, with NaN wherever no token stands.

    Page 0 and the last page are unused: an empty entry of a selection that is looked up all the
    same (-1 as an index, or clamped to 0) finds NaN.
    """
    lengths = (inputs.cu_k[1:] - inputs.cu_k[:-1]).tolist()
    pages = [count_blocks(n, block) for n in lengths]
    used = sum(pages)
    order = torch.randperm(used, generator=torch.Generator().manual_seed(seed)) + 1
    names = ("k", "v", "k_idx")
    scaled = [name for name in names if getattr(inputs, name).dtype == NVFP4]
    packed = [getattr(inputs, name) for name in names] + [inputs.descales[name] for name in scaled]
    stores = [_full((used + 2, x.shape[1], block, x.shape[2]), x.dtype) for x in packed]
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
    k_pages, v_pages, index_pages = stores[:3]
    k_lens = torch.tensor(lengths, dtype=torch.int32)
    scales = dict(zip(scaled, stores[3:], strict=True))
    return PagedCache(k_pages, v_pages, index_pages, table, k_lens, scales)


def with_gaps(x: Tensor) -> Tensor:
    """The same values as a view with gaps: heads outermost in memory, rows padded with junk."""
    order = (1, 0, *range(2, x.ndim)) if x.ndim > 2 else (0, 1)
    shape = [x.shape[i] for i in order]
    shape[-1] += 8
    buffer = _full(shape, x.dtype)
    view = buffer[..., : x.shape[-1]].permute(order)
    view.copy_(x)
    return view


def _full(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Junk: NaN, bytes of NVFP4 that have none, or numbers far too large."""
    if dtype == NVFP4:
        return torch.full(tuple(shape), 0xFF, dtype=torch.uint8).view(dtype)
    return torch.full(tuple(shape), torch.nan if dtype.is_floating_point else 2**30, dtype=dtype)
