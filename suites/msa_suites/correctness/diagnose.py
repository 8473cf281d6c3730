"""Guessing why a result is wrong: known mistakes are played through and compared with it.

Only a few wrong rows are tried, and only after a check has failed. A guess is named when the
subject's rows are what that mistake would have given; no guess is better than a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from msa.packing import segments
from msa_suites.correctness.margins import as_mask
from msa_suites.correctness.material import Material
from msa_suites.correctness.passrule import Mismatch

_ROWS = 24
#: A mistake explains rows that it reproduces to this relative error: low precision included.
_CLOSE = 0.03


@dataclass(frozen=True, slots=True)
class Evidence:
    """A wrong result.

    Attributes:
        material: what the judge knows of the case.
        where: int64 ``[t]``, packed row of each row of the result.
        out: ``[t, Hq, D]`` or None.
        selection: int32 ``[t, Hkv, k]`` or None.
        given: the selection that an attention was given, int32 ``[Tq, Hkv, k]``; None where the
            subject selects by itself.
    """

    material: Material
    where: Tensor
    out: Tensor | None = None
    selection: Tensor | None = None
    given: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A way to be wrong: each field differs from the method in one respect."""

    cause: str
    pooling: str = "max"
    shared: bool = False
    forced: bool = True
    local_open: bool = False
    shift: int = 0
    top_left: bool = False
    scale: float | None = None
    heads: str = "blocked"
    dense: bool = False
    block_factor: float = 1.0
    budget: int = 0


RIGHT = Mistake("")
SELECTING = (
    Mistake("the mean of a block's scores is taken instead of the maximum", pooling="mean"),
    Mistake("one selection for all groups", shared=True),
    Mistake("the local block is not forced", forced=False),
    Mistake("everything is attended, nothing selected", dense=True),
    Mistake("one block too few is kept", budget=-1),
    Mistake("one block too many is kept", budget=1),
    Mistake("another block size is used (a page size?): half of it", block_factor=0.5),
    Mistake("another block size is used (a page size?): twice it", block_factor=2.0),
)
ATTENDING = (
    Mistake("future tokens of the local block are visible", local_open=True),
    Mistake("positions are one too high (off by one in bottom-right causality)", shift=1),
    Mistake("positions are one too low (off by one in bottom-right causality)", shift=-1),
    Mistake("positions count from the first query (top-left causal)", top_left=True),
    Mistake("the scale of the logits is missing", scale=1.0),
    Mistake("query head h reads group h % Hkv instead of h // R", heads="modulo"),
)


def likely_cause(evidence: Evidence, wrong: Mismatch) -> str:
    """The mistake that explains the result, or "" if none is known to."""
    if evidence.out is not None and not bool(evidence.out.any()):
        return "the output is all zero"
    m = evidence.material
    if evidence.selection is not None and evidence.out is None:
        kept = as_mask(evidence.selection, m.scores.shape[-1])
        theirs = as_mask(m.selection[evidence.where], m.scores.shape[-1])
        if kept.shape[1] > 1 and _alike(kept) and not _alike(theirs):
            return "one selection for all groups"
        swapped = _swapped(evidence.selection)
        if swapped is not None and bool((as_mask(swapped, kept.shape[-1]) == theirs).all()):
            return "the layout is swapped: [H, T, k] for [T, H, k]"
    if evidence.out is not None:
        swapped = _swapped(evidence.out)
        truth = m.truth[0][evidence.where]
        if swapped is not None and _close(swapped, truth):
            return "the layout is swapped: [H, T, D] for [T, H, D]"
    sequence, rows = _sample(evidence, wrong)
    if not rows:
        return ""
    if _explains(evidence, sequence, rows, RIGHT):
        return ""  # only slightly wrong: any mistake of little effect would seem to explain it
    mistakes = ATTENDING if evidence.given is not None else (*SELECTING, *ATTENDING)
    for mistake in mistakes:
        if _explains(evidence, sequence, rows, mistake):
            return mistake.cause
    return ""


def _alike(kept: Tensor) -> bool:
    return bool((kept == kept[:, :1]).all())


def _swapped(x: Tensor) -> Tensor | None:
    if x.shape[1] == 1 or x.shape[0] == 1:
        return None
    return x.reshape([x.shape[1], x.shape[0], *x.shape[2:]]).transpose(0, 1)


def _close(a: Tensor, b: Tensor) -> bool:
    a, b = a.double(), b.double()
    return bool((a - b).norm() <= _CLOSE * b.norm())


def _sample(evidence: Evidence, wrong: Mismatch) -> tuple[int, list[int]]:
    """The sequence with the first wrong row, and some of its wrong rows as rows of the result."""
    packed = evidence.where[wrong.first[0]]
    for b, s in enumerate(segments(evidence.material.inputs.cu_q, evidence.material.inputs.cu_k)):
        if s.q_start <= packed < s.q_stop and s.k_len <= 20_000:
            inside = (evidence.where >= s.q_start) & (evidence.where < s.q_stop)
            rows = (inside & wrong.rows.reshape(len(inside), -1).any(-1)).nonzero()[:, 0]
            return b, rows[:: max(1, len(rows) // _ROWS)][:_ROWS].tolist()
    return 0, []


def _explains(evidence: Evidence, sequence: int, rows: list[int], mistake: Mistake) -> bool:
    index = torch.tensor(rows)
    packed = evidence.where[index]
    chosen = dict(_play(evidence, sequence, packed, mistake))
    if evidence.selection is not None and evidence.out is None:
        if mistake in ATTENDING:
            return False
        groups = evidence.selection.shape[1]
        kept = as_mask(evidence.selection[index], evidence.material.scores.shape[-1])
        agree = sum(
            bool((_blocks_of(chosen["kept"][i, g], evidence) == kept[i, g]).all())
            for i in range(len(rows))
            for g in range(groups)
        )
        return agree >= 0.9 * len(rows) * groups
    assert evidence.out is not None
    return _close(chosen["out"], evidence.out[index])


def _blocks_of(tokens: Tensor, evidence: Evidence) -> Tensor:
    block = evidence.material.case.block
    columns = evidence.material.scores.shape[-1]
    padded = torch.nn.functional.pad(tokens, (0, columns * block - len(tokens)))
    kept: Tensor = padded.unflatten(-1, (columns, block)).any(-1)
    return kept


def _play(
    evidence: Evidence, sequence: int, packed: Tensor, mistake: Mistake
) -> Iterator[tuple[str, Tensor]]:
    """Kept tokens ``[t, Hkv, S]`` and out ``[t, Hq, D]`` of the mistaken method on some rows."""
    m = evidence.material
    case, x = m.case, m.exactly
    s = segments(x.cu_q, x.cu_k)[sequence]
    if mistake.top_left:
        position = packed - s.q_start
    else:
        position = packed - s.q_start + s.first_position + mistake.shift
    token = torch.arange(s.k_len)
    seen = token <= position[:, None]  # [t, S]
    block = max(1, int(case.block * mistake.block_factor))
    columns = -(-s.k_len // block)
    local = (position.clamp(0, s.k_len - 1) // block)[:, None]
    column = torch.arange(columns)
    if evidence.given is not None:
        kept = as_mask(evidence.given[packed], columns)
    elif mistake.dense:
        kept = torch.ones(len(packed), case.Hkv, columns, dtype=torch.bool)
    else:
        keys = x.k_idx[s.k_start : s.k_stop, 0]
        scores = torch.einsum("tgd,sd->tgs", x.q_idx[packed], keys) * case.index_scale
        pooled = _pool(scores, seen, columns, block, mistake.pooling)
        if mistake.shared:
            pooled = pooled.amax(1, keepdim=True).expand(-1, case.Hkv, -1)
        if mistake.forced:
            must = (column < case.sink_blocks) | (column > local - case.local_blocks)
            pooled = pooled.masked_fill((must & (column <= local))[:, None], torch.inf)
        pooled = pooled.masked_fill((column > local)[:, None], -torch.inf)
        width = min(max(1, case.topk + mistake.budget), columns)
        best = pooled.topk(width, dim=-1)
        kept = torch.zeros_like(pooled, dtype=torch.bool).scatter_(-1, best.indices, value=True)
        kept &= pooled > -torch.inf
    tokens = kept.repeat_interleave(block, -1)[..., : s.k_len]
    if mistake.local_open:
        seen = seen | (token // block == local)
    tokens = tokens & seen[:, None]
    yield "kept", tokens
    head = torch.arange(case.Hq)
    group = head % case.Hkv if mistake.heads == "modulo" else head // case.group_size
    keys, values = (a[s.k_start : s.k_stop].nan_to_num()[:, group] for a in (x.k, x.v))
    scale = case.scale if mistake.scale is None else mistake.scale
    logits = torch.einsum("thd,shd->ths", x.q[packed], keys) * scale
    weight = logits.masked_fill(~tokens[:, group], -torch.inf).softmax(-1).nan_to_num()
    yield "out", torch.einsum("ths,shd->thd", weight, values)


def _pool(scores: Tensor, seen: Tensor, columns: int, block: int, pooling: str) -> Tensor:
    pad = (0, columns * block - scores.shape[-1])
    masked = scores.masked_fill(~seen[:, None], -torch.inf)
    best: Tensor
    if pooling == "max":
        masked = torch.nn.functional.pad(masked, pad, value=-torch.inf)
        best = masked.unflatten(-1, (columns, block)).amax(-1)
        return best
    total = torch.nn.functional.pad(scores * seen[:, None], pad).unflatten(-1, (columns, block))
    count = torch.nn.functional.pad(seen.double(), pad).unflatten(-1, (columns, block)).sum(-1)
    mean = total.sum(-1) / count[:, None].clamp_min(1)
    best = mean.masked_fill((count == 0)[:, None], -torch.inf)
    return best
