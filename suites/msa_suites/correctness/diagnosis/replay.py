"""Playing mistakes in selecting and attending through on some wrong rows."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from msa.packing import Segment, segments
from msa_suites.correctness.diagnosis.bytes_read import misreadings
from msa_suites.correctness.diagnosis.evidence import Evidence
from msa_suites.correctness.diagnosis.mistakes import (
    ATTENDING,
    LAST,
    READING,
    RIGHT,
    SELECTING,
    Mistake,
)
from msa_suites.correctness.margins import as_mask
from msa_suites.correctness.passrule import Mismatch

_ROWS = 24
#: Numbers of a tensor that are played through: 128 MB in float64.
_MOST = 16_000_000
#: A mistake explains rows that it reproduces to this relative error: low precision included.
_CLOSE = 0.03
#: What is left of the error where a fitted number explains it.
_BETTER = 0.2


def cause(evidence: Evidence, wrong: Mismatch) -> str:
    """The mistake that explains the result, or "" if none is known to."""
    if evidence.out is not None and not bool(evidence.out.any()):
        return "the output is all zero"
    if text := _swapped_result(evidence):
        return text
    sequence, rows = _sample(evidence, wrong)
    if not rows:
        return ""
    if evidence.out is not None and not bool(evidence.out[torch.tensor(rows)].any()):
        return ""  # never written, whatever was read
    if _explains(evidence, sequence, rows, RIGHT):
        return ""  # only slightly wrong: any mistake of little effect would seem to explain it
    table = (*READING, *ATTENDING) if evidence.given is not None else (*SELECTING, *ATTENDING)
    misread = misreadings(evidence.material, ("q", "k", "v"))
    others = (Mistake(words, inputs=x) for words, x in misread)
    for mistake in chain(table, others):
        if _explains(evidence, sequence, rows, mistake):
            return mistake.cause
    if evidence.given is not None and _leaks(evidence, sequence, rows):
        return "hidden tokens keep some weight: an additive mask that is not low enough"
    return ""


def _swapped_result(evidence: Evidence) -> str:
    """What the whole result shows: groups that are alike, axes that are swapped."""
    m = evidence.material
    if evidence.selection is not None and evidence.out is None:
        kept = as_mask(evidence.selection, m.scores.shape[-1])
        theirs = as_mask(m.selection[evidence.where], m.scores.shape[-1])
        if kept.shape[1] > 1 and _alike(kept) and not _alike(theirs):
            return "one selection for all groups"
        swapped = _swapped(evidence.selection)
        if swapped is not None and bool((as_mask(swapped, kept.shape[-1]) == theirs).all()):
            return "the layout is swapped: [H, T, k] for [T, H, k]"
        if text := _never_candidates(kept, theirs):
            return text
    if evidence.out is not None:
        swapped = _swapped(evidence.out)
        if swapped is not None and _close(swapped, m.truth[0][evidence.where]):
            return "the layout is swapped: [H, T, D] for [T, H, D]"
    return ""


def _never_candidates(kept: Tensor, theirs: Tensor) -> str:
    """Whether all that is missed lies behind all that is taken for it: ``[t, Hkv, NB]`` both."""
    missed, instead = (theirs & ~kept).any(0).any(0), (kept & ~theirs).any(0).any(0)
    if not bool(missed.any()) or not bool(instead.any()):
        return ""
    first, last = int(missed.nonzero()[0]), int(instead.nonzero()[-1])
    # Where choice was free the two would mix.
    if last >= first or int(missed.sum()) < 8:
        return ""
    return f"blocks before {first} are candidates, from there on they are never chosen"


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
    case = evidence.material.case
    per_token = case.Hq * max(case.D, _ROWS)
    for b, s in enumerate(segments(evidence.material.inputs.cu_q, evidence.material.inputs.cu_k)):
        if s.q_start <= packed < s.q_stop and s.k_len * per_token <= _MOST:
            inside = (evidence.where >= s.q_start) & (evidence.where < s.q_stop)
            rows = (inside & wrong.rows.reshape(len(inside), -1).any(-1)).nonzero()[:, 0]
            return b, rows[:: max(1, len(rows) // _ROWS)][:_ROWS].tolist()
    return 0, []


def _explains(evidence: Evidence, sequence: int, rows: list[int], mistake: Mistake) -> bool:
    index = torch.tensor(rows)
    tokens, out = _play(evidence, sequence, evidence.where[index], mistake)
    if evidence.selection is not None and evidence.out is None:
        if mistake in ATTENDING:
            return False
        groups = evidence.selection.shape[1]
        kept = as_mask(evidence.selection[index], evidence.material.scores.shape[-1])
        agree = sum(
            bool((_blocks_of(tokens[i, g], evidence) == kept[i, g]).all())
            for i in range(len(rows))
            for g in range(groups)
        )
        return agree >= 0.9 * len(rows) * groups
    assert evidence.out is not None
    return _close(out, evidence.out[index])


def _blocks_of(tokens: Tensor, evidence: Evidence) -> Tensor:
    block = evidence.material.case.block
    columns = evidence.material.scores.shape[-1]
    padded = torch.nn.functional.pad(tokens, (0, columns * block - len(tokens)))
    kept: Tensor = padded.unflatten(-1, (columns, block)).any(-1)
    return kept


def _play(
    evidence: Evidence, sequence: int, packed: Tensor, mistake: Mistake
) -> tuple[Tensor, Tensor]:
    """Kept tokens ``[t, Hkv, S]`` and out ``[t, Hq, D]`` of the mistaken method on some rows."""
    tokens, logits, values = _parts(evidence, sequence, packed, mistake)
    weight = logits.masked_fill(~_by_head(tokens, evidence, mistake), -torch.inf)
    return tokens, torch.einsum("ths,shd->thd", weight.softmax(-1).nan_to_num(), values)


def _leaks(evidence: Evidence, sequence: int, rows: list[int]) -> bool:
    """Whether one factor on the weights of all hidden tokens, the same everywhere, explains rows.

    With A and Z the weighted values and weights of what is kept, B and W of what is not, the
    output is (A + xB) / (Z + xW): linear in x.
    """
    index = torch.tensor(rows)
    assert evidence.out is not None
    tokens, logits, values = _parts(evidence, sequence, evidence.where[index], RIGHT)
    kept = _by_head(tokens, evidence, RIGHT)
    weight = (logits - logits.amax(-1, keepdim=True)).exp()
    got = evidence.out[index].double()
    sums, totals = [], []
    for side in (kept, ~kept):
        share = weight * side
        sums.append(torch.einsum("ths,shd->thd", share, values))
        totals.append(share.sum(-1, keepdim=True))
    near, far = (value - got * total for value, total in zip(sums, totals, strict=True))
    factor = -float((near * far).sum() / far.square().sum().clamp_min(1e-300))
    if not 0 < factor < 1:
        return False
    played = (sums[0] + factor * sums[1]) / (totals[0] + factor * totals[1])
    before = (sums[0] / totals[0].clamp_min(1e-300) - got).norm()
    return _close(played, got) and bool((played - got).norm() <= _BETTER * before)


def _by_head(tokens: Tensor, evidence: Evidence, mistake: Mistake) -> Tensor:
    """Kept tokens ``[t, Hq, S]``."""
    return tokens[:, _group(evidence, mistake)]


def _group(evidence: Evidence, mistake: Mistake) -> Tensor:
    case = evidence.material.case
    head = torch.arange(case.Hq)
    return head % case.Hkv if mistake.heads == "modulo" else head // case.group_size


def _parts(
    evidence: Evidence, sequence: int, packed: Tensor, mistake: Mistake
) -> tuple[Tensor, Tensor, Tensor]:
    """Kept tokens ``[t, Hkv, S]``, logits ``[t, Hq, S]`` and values ``[S, Hq, D]``."""
    m = evidence.material
    case, x = m.case, mistake.inputs or m.exactly
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
    if mistake.dense:
        kept = torch.ones(len(packed), case.Hkv, columns, dtype=torch.bool)
    elif evidence.given is not None:
        read = mistake.reading or (lambda ids: ids)
        ids = read(evidence.given)[packed]
        kept = as_mask(torch.where(ids == LAST, columns - 1, ids), columns)
    else:
        kept = _kept(evidence, mistake, s, packed, seen, local, block)
    tokens = kept.repeat_interleave(block, -1)[..., : s.k_len]
    if mistake.local_open:
        seen = seen | (token // block == local)
    group = _group(evidence, mistake)
    keys, values = (a[s.k_start : s.k_stop].nan_to_num()[:, group] for a in (x.k, x.v))
    scale = case.scale if mistake.scale is None else mistake.scale
    return tokens & seen[:, None], torch.einsum("thd,shd->ths", x.q[packed], keys) * scale, values


def _kept(
    evidence: Evidence,
    mistake: Mistake,
    s: Segment,
    packed: Tensor,
    seen: Tensor,
    local: Tensor,
    block: int,
) -> Tensor:
    """Blocks ``[t, Hkv, NB]`` that the mistaken method selects."""
    case, x = evidence.material.case, evidence.material.exactly
    columns = -(-s.k_len // block)
    column = torch.arange(columns)
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
    return kept & (pooled > -torch.inf)


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
