"""Judging a selection: what makes it valid, and where rounding may choose otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msa.packing import segments
from msa_suites.case import Case
from msa_suites.correctness.passrule import Mismatch
from msa_suites.inputs import Inputs

#: Scores may differ by this many eps of the product of the vectors' norms.
EPS_FACTOR = 4.0
#: Rounding of a score that its owner does not declare exact: TF32, or the inputs' own dtype.
_INEXACT = {
    torch.float32: 2.0**-10,
    torch.float16: 2.0**-10,
    torch.bfloat16: 2.0**-7,
    torch.float8_e4m3fn: 2.0**-10,
}
#: Of products in E4M3, however exact they are declared: Hopper's tensor cores keep about 14 bits of
#: their sums (DeepSeek-V3, arXiv 2412.19437, section 3.3.2).
_EIGHT_BITS = 2.0**-12


@dataclass(frozen=True, slots=True)
class Geometry:
    """Which blocks a query may see and must keep.

    Attributes:
        local: int64 ``[Tq]``, the block that holds the query.
        forced: bool ``[Tq, NB]``, blocks that are always kept.
        visible: bool ``[Tq, NB]``.
        count: int64 ``[Tq]``, blocks that are kept in all.
    """

    local: Tensor
    forced: Tensor
    visible: Tensor
    count: Tensor

    @classmethod
    def of(cls, case: Case, inputs: Inputs, *, topk: int | None = None) -> Geometry:
        positions = torch.cat([s.positions() for s in segments(inputs.cu_q, inputs.cu_k)])
        columns = -(-max(case.k_lens) // case.block)
        column = torch.arange(columns)
        local = positions // case.block
        visible = column <= local[:, None]
        forced = visible & (
            (column < case.sink_blocks) | (column > local[:, None] - case.local_blocks)
        )
        return cls(local, forced, visible, (local + 1).clamp(max=topk or case.topk))

    def rows(self, where: Tensor) -> Geometry:
        """The same for some rows, int64 ``[t]``."""
        return Geometry(
            self.local[where], self.forced[where], self.visible[where], self.count[where]
        )


def score_tolerance(case: Case, inputs: Inputs, *, exact: bool = True) -> Tensor:
    """``4 eps |q| |k| scale`` per row and group: float64 ``[Tq, Hkv]``.

    Args:
        case: gives the scale.
        inputs: values in any dtype; ``|k|`` is the largest norm of the sequence's index keys.
        exact: whether scores are accumulated in float32, whatever the inputs' dtype.
    """
    dtype = case.dtypes["k_idx"]
    dtype = (
        case.dtypes["q_idx"] if dtype == torch.float4_e2m1fn_x2 else dtype
    )  # what it is multiplied in
    eps = torch.finfo(torch.float32).eps if exact else _INEXACT[dtype]
    if dtype == torch.float8_e4m3fn:
        eps = max(eps, _EIGHT_BITS)
    norms = inputs.q_idx.double().norm(dim=-1)
    keys = inputs.k_idx.double().norm(dim=-1).amax(-1)
    largest = torch.ones(len(norms), dtype=torch.float64)
    for s in segments(inputs.cu_q, inputs.cu_k):
        if s.k_len:
            largest[s.q_start : s.q_stop] = keys[s.k_start : s.k_stop].max()
    tolerance: Tensor = norms * largest[:, None] * (EPS_FACTOR * eps * case.index_scale)
    return tolerance


def as_mask(selection: Tensor, columns: int) -> Tensor:
    """Bool ``[Tq, Hkv, columns]`` of valid ids; other entries are left out."""
    ids = torch.where((selection >= 0) & (selection < columns), selection, -1).long() + 1
    mask = torch.zeros(*selection.shape[:2], columns + 1, dtype=torch.bool)
    return mask.scatter_(-1, ids, value=True)[..., 1:]


def clear_rows(scores: Tensor, selection: Tensor, geometry: Geometry, tolerance: Tensor) -> Tensor:
    """Bool ``[Tq, Hkv]``: where the last kept score leads the next one by more than rounding.

    Args:
        scores: oracle's, ``[Tq, Hkv, NB]``.
        selection: oracle's, ``[Tq, Hkv, k]``.
        geometry: of the case.
        tolerance: ``[Tq, Hkv]``.
    """
    worst, best = _border(scores, as_mask(selection, scores.shape[-1]), geometry)
    # Without a rival on one side nothing can be mistaken.
    return (worst == torch.inf) | (best == -torch.inf) | (worst - best > tolerance)


def _border(scores: Tensor, kept: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """The lowest score that was kept freely and the highest that was not, ``[Tq, Hkv]`` each."""
    ranked = torch.where(scores.isnan(), -torch.inf, scores.double())
    free = (geometry.visible & ~geometry.forced)[:, None]
    worst = torch.where(kept & free, ranked, torch.inf).amin(-1)
    best = torch.where(~kept & free, ranked, -torch.inf).amax(-1)
    return worst, best


def judge_selection(
    got: Tensor,
    scores: Tensor,
    geometry: Geometry,
    tolerance: Tensor,
    *,
    rows: Tensor | None = None,
) -> Mismatch | None:
    """Whether a selection is one that the scores allow.

    Unique, in range, causal, of the right count, forced blocks in, -1 tail; then no block is left
    out that leads a kept one by more than ``tolerance``. Where the margin exceeds it, this is
    equality as a set; elsewhere it is equality of score values. The order of the ids is free.

    Args:
        got: int32 ``[Tq, Hkv, k]``.
        scores: oracle's, ``[Tq, Hkv, NB]``.
        geometry: of the case.
        tolerance: ``[Tq, Hkv]``; 0 where the scores were given.
        rows: bool ``[Tq, Hkv]``, what to judge; all by default.
    """
    columns = scores.shape[-1]
    used = got >= 0
    ids = got.sort(-1).values
    twice = (ids[..., 1:] == ids[..., :-1]) & (ids[..., 1:] >= 0)
    local, count = geometry.local[:, None, None], geometry.count[:, None, None]
    kept = as_mask(got, columns)
    forced = geometry.forced[:, None] & ~kept
    worst, best = _border(scores, kept, geometry)
    rules = (
        ("an id below -1", (got < -1).any(-1)),
        (f"an id above the last block {columns - 1}", (got >= columns).any(-1)),
        ("a block twice", twice.any(-1)),
        ("an id after a -1: not packed to the left", (used[..., 1:] & ~used[..., :-1]).any(-1)),
        ("a block of the future", (got > local).any(-1)),
        ("the wrong number of blocks", used.sum(-1) != count[..., 0]),
        (
            "the local block is missing",
            ~kept.gather(-1, local.expand(-1, kept.shape[1], -1))[..., 0],
        ),
        ("a forced block is missing", forced.any(-1)),
        ("a block is kept though another scores higher", best - worst > tolerance),
    )
    for what, broken in rules:
        wrong = broken if rows is None else broken & rows
        if bool(wrong.any()):
            t, g = (int(i) for i in wrong.nonzero()[0])
            shown = [i for i in got[t, g].tolist() if i != -1]
            text = (
                f"{what}: got {shown}, the query's own block is {int(geometry.local[t])} and "
                f"{int(geometry.count[t])} blocks are kept"
            )
            return Mismatch(text, (t, g), float(wrong.float().mean()), wrong)
    return None
