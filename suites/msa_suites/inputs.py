"""Tensors of a case, drawn from its seed: the same case gives the same bits anywhere.

The hostile dressings are here too: NaN in slots that nothing reads, shuffled pages, views with
gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msa.packing import count_blocks, cumulative, segments
from msa_suites.case import Case

#: Neighbours that share one index query under high overlap.
_SPAN = 512
#: Their own part in it: enough to differ in bits, too little to change many choices.
_OWN = 0.02


@dataclass(frozen=True, slots=True)
class Inputs:
    """Packed tensors of a case.

    Attributes:
        q: ``[Tq, Hq, D]``.
        k: ``[Tk, Hkv, D]``.
        v: ``[Tk, Hkv, D]``.
        q_idx: ``[Tq, Hkv, Di]``.
        k_idx: ``[Tk, 1, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_idx: Tensor
    k_idx: Tensor
    cu_q: Tensor
    cu_k: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The positional arguments of ``attend``."""
        return self.q, self.k, self.v, self.q_idx, self.k_idx

    def double(self) -> Inputs:
        """The same values in float64, for an oracle that must not round."""
        q, k, v, q_idx, k_idx = (x.double() for x in self.tensors)
        return replace(self, q=q, k=k, v=v, q_idx=q_idx, k_idx=k_idx)

    def clone(self) -> Inputs:
        q, k, v, q_idx, k_idx = (x.clone() for x in self.tensors)
        return Inputs(q, k, v, q_idx, k_idx, self.cu_q.clone(), self.cu_k.clone())


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


def make_inputs(case: Case, *, seed: int | None = None) -> Inputs:
    """The tensors of ``case`` on the CPU.

    Args:
        case: what to draw.
        seed: another seed than the case's own, for a second draw of the same shapes.
    """
    generator = torch.Generator().manual_seed(case.seed if seed is None else seed)
    tq, tk, dtype = sum(case.q_lens), sum(case.k_lens), case.torch_dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    # 1.5 sharpens the softmax: single tokens carry weight, so that a missing one is seen.
    q = draw(tq, case.Hq, case.D) * 1.5
    k, v = draw(tk, case.Hkv, case.D), draw(tk, case.Hkv, case.D)
    q_idx, k_idx = draw(tq, case.Hkv, case.Di), draw(tk, 1, case.Di)
    if case.overlap == "high":
        q_idx = _alike(q_idx, generator)
    cu_q, cu_k = cumulative(list(case.q_lens)), cumulative(list(case.k_lens))
    q, k, v, q_idx, k_idx = (x.to(dtype) for x in (q, k, v, q_idx, k_idx))
    return Inputs(q, k, v, q_idx, k_idx, cu_q, cu_k)


def _alike(q_idx: Tensor, generator: torch.Generator) -> Tensor:
    spans = count_blocks(len(q_idx), _SPAN)
    shared = torch.randn(spans, *q_idx.shape[1:], generator=generator)
    return shared.repeat_interleave(_SPAN, 0)[: len(q_idx)] + _OWN * q_idx


def selection_overlap(selection: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int) -> float:
    """Share of a query's free choices that the next query makes too, measured on a selection.

    Only pairs of neighbours whose both contexts exceed the budget count, and the local blocks do
    not: 1.0 means that neighbours choose alike, about ``k / blocks`` that they choose at random.

    Args:
        selection: int32 ``[Tq, Hkv, k]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.

    Returns:
        A share in 0..1; NaN where no pair counts.
    """
    topk = selection.shape[-1]
    shared = chosen = 0
    for s in segments(cu_q, cu_k):
        position = s.positions()
        rows = selection[s.q_start : s.q_stop]
        local = (position // block)[:, None, None]
        free = (rows >= 0) & (rows != local)
        counts = (position[:-1] >= topk * block)[:, None, None] & free[:-1]
        # Row by row of the neighbours: [t, G, k] against [t, G, k].
        for start in range(0, len(rows) - 1, 4096):
            stop = min(start + 4096, len(rows) - 1)
            here, there = rows[start:stop], rows[start + 1 : stop + 1]
            again = (here[..., :, None] == there[..., None, :]).any(-1)
            shared += int((again & counts[start:stop]).sum())
        chosen += int(counts.sum())
    return shared / chosen if chosen else float("nan")


def measured_overlap(case: Case, inputs: Inputs, *, runs: int = 8, width: int = 8) -> float:
    """:func:`selection_overlap` of the true pipeline, on a sample of neighbouring rows.

    A run of rows is a chunk that ends inside the sequence, so the oracle selects for it without
    computing the rows in between. NaN for a decode case: one query has no neighbour.
    """
    from msa import reference

    total = weight = 0.0
    for s in segments(inputs.cu_q, inputs.cu_k):
        first = max(0, case.budget_tokens - s.first_position)
        if s.q_len - first < 2 * width:
            continue
        for start in torch.linspace(first, s.q_len - width, runs).long().tolist():
            keys = s.first_position + start + width
            cu_q, cu_k = cumulative([width]), cumulative([keys])
            scores = reference.block_scores(
                inputs.q_idx[s.q_start + start : s.q_start + start + width],
                inputs.k_idx[s.k_start : s.k_start + keys],
                cu_q=cu_q,
                cu_k=cu_k,
                block=case.block,
                scale=case.index_scale,
            )
            selection = reference.select_blocks(scores, cu_q=cu_q, cu_k=cu_k, **case.settings)
            share = selection_overlap(selection, cu_q=cu_q, cu_k=cu_k, block=case.block)
            if share == share:
                total, weight = total + share, weight + 1
    return total / weight if weight else float("nan")


def poison_unread(inputs: Inputs, selection: Tensor, block: int) -> Inputs:
    """NaN in every key and value that no query of its group reads.

    Args:
        inputs: what to poison; keys and values are copied.
        selection: int32 ``[Tq, Hkv, k]`` that the attention is given.
        block: tokens per block.
    """
    k, v = inputs.k.clone(), inputs.v.clone()
    for s in segments(inputs.cu_q, inputs.cu_k):
        position = torch.arange(s.k_len)
        seen = position <= s.positions()[:, None]  # [t, S]
        for group in range(k.shape[1]):
            chosen = selection[s.q_start : s.q_stop, group]
            kept = torch.zeros(s.q_len, count_blocks(s.k_len, block) + 1, dtype=torch.bool)
            kept.scatter_(1, chosen.long().clamp(min=-1) + 1, value=True)
            read = (kept[:, position // block + 1] & seen).any(0)
            k[s.k_start : s.k_stop, group][~read] = torch.nan
            v[s.k_start : s.k_stop, group][~read] = torch.nan
    return replace(inputs, k=k, v=v)


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
