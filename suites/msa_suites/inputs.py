"""Tensors of a case, drawn from its seed: the same case gives the same bits anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from msa import nvfp4
from msa.packing import count_blocks, cumulative, segments
from msa.quantized import E4M3, NARROW, NVFP4, quantize
from msa_suites.case import Case
from msa_suites.eight_bits import meant, meant_packed

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
        descales: factors of the tensors in E4M3, float32 ``[heads]``, by the tensor's name; of
            those in NVFP4 their scales, E4M3 ``[Tk, heads, d / 16]``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_idx: Tensor
    k_idx: Tensor
    cu_q: Tensor
    cu_k: Tensor
    descales: dict[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The positional arguments of ``attend``."""
        return self.q, self.k, self.v, self.q_idx, self.k_idx

    def factors(self, *names: str) -> dict[str, Tensor]:
        """The keywords of an operation on the tensors of these names: their factors."""
        return {f"{name}_descale": self.descales[name] for name in names if name in self.descales}

    def double(self) -> Inputs:
        """The same values in float64, for an oracle that must not round."""
        return self.wide(torch.float64)

    def wide(self, dtype: torch.dtype) -> Inputs:
        """The same values in another dtype."""
        values = {name: self.meant(name).to(dtype) for name in TENSORS}
        return replace(self, **values, descales={})

    def meant(self, name: str) -> Tensor:
        """The values of one of the tensors: itself, or float64 of bytes."""
        x: Tensor = getattr(self, name)
        if x.dtype == NVFP4:
            return meant_packed(x, self.descales[name])
        return meant(x, self.descales.get(name)) if x.dtype == E4M3 else x

    def unpacked(self) -> Inputs:
        """What is in NVFP4 in the dtype of the queries, which has all of its values."""
        packed = [name for name in TENSORS if getattr(self, name).dtype == NVFP4]
        wide = {name: self.meant(name).to(self.q.dtype) for name in packed}
        kept = {name: x for name, x in self.descales.items() if name not in packed}
        return replace(self, **wide, descales=kept)

    def rows(self, name: str, where: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows of one of the tensors, and factors for them."""
        x, factors = getattr(self, name), self.descales.get(name)
        if factors is not None and x.dtype == NVFP4:
            factors = factors.index_select(0, where)
        return x.index_select(0, where), factors

    def clone(self) -> Inputs:
        kept = {name: x.clone() for name, x in self.descales.items()}
        return replace(self, **{name: getattr(self, name).clone() for name in _ALL}, descales=kept)


#: The tensors of ``attend`` by name, and those with the lengths.
TENSORS = ("q", "k", "v", "q_idx", "k_idx")
_ALL = tuple(field.name for field in fields(Inputs) if field.name != "descales")


def make_inputs(case: Case, *, seed: int | None = None) -> Inputs:
    """The tensors of ``case`` on the CPU.

    Args:
        case: what to draw.
        seed: another seed than the case's own, for a second draw of the same shapes.
    """
    return stored(case, drawn(case, seed=seed))


def drawn(case: Case, *, seed: int | None = None) -> Inputs:
    """The values of :func:`make_inputs` in float32, not yet rounded to the case's dtypes."""
    generator = torch.Generator().manual_seed(case.seed if seed is None else seed)
    tq, tk = sum(case.q_lens), sum(case.k_lens)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    # 1.5 sharpens the softmax: single tokens carry weight, so that a missing one is seen.
    q = draw(tq, case.Hq, case.D) * 1.5
    k, v = draw(tk, case.Hkv, case.D), draw(tk, case.Hkv, case.D)
    q_idx, k_idx = draw(tq, case.Hkv, case.Di), draw(tk, 1, case.Di)
    if case.overlap == "high":
        q_idx = _alike(q_idx, generator)
    cu_q, cu_k = cumulative(list(case.q_lens)), cumulative(list(case.k_lens))
    q, k, v, q_idx, k_idx = (
        _uneven(x) if case.dtypes[name] in NARROW else x
        for name, x in zip(TENSORS, (q, k, v, q_idx, k_idx), strict=True)
    )
    return Inputs(q, k, v, q_idx, k_idx, cu_q, cu_k)


def stored(case: Case, wide: Inputs) -> Inputs:
    """The tensors in the case's dtypes; in E4M3 with a factor for each head, NVFP4 with scales."""
    values, factors = {}, {}
    for name, dtype in case.dtypes.items():
        values[name] = getattr(wide, name)
        if dtype == NVFP4:
            values[name], factors[name] = nvfp4.quantize(values[name])
        if dtype == E4M3:
            values[name], factors[name] = quantize(values[name], axis=1)
        values[name] = values[name].to(dtype)
    return replace(wide, **values, descales=factors)


def _uneven(x: Tensor) -> Tensor:
    """Heads of unlike size: the factor of one is wrong for its neighbours."""
    return x * 0.5 ** (torch.arange(x.shape[1]) % 3)[:, None]


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
