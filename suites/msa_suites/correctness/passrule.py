"""The one pass rule of every comparison of numbers, here and in CI.

1. inf stands where inf should stand, and nothing is NaN.
2. The largest error is at most twice that of an eager run in the same precision, plus 1e-6.
3. The relative L2 error is at most a bound per dtype, over all rows and, ten times looser, in each
   row: in a long context one wrong row disappears in the sum over all of them. Where the eager run
   itself comes near the bound (logits of a hundred), twice its error is the bound.

There is no absolute tolerance alone: zeros would pass it, for attention rows are small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RELATIVE_L2 = {
    torch.float64: 1e-6,  # returned from float32 arithmetic
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
    torch.float8_e4m3fn: 6e-2,
}
TIMES_EAGER = 2.0
FLOOR = 1e-6
ROW_FACTOR = 10.0
#: However bad the eager run is: zeros, whose relative error is 1, never pass.
MOST = 0.5


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where and how far a result is wrong.

    Attributes:
        what: the rule that was broken, in words.
        first: index of the first wrong position.
        share: share of wrong rows (one row: one query and head, or query and group).
        rows: bool, which rows are wrong; leading axes of the result.
        got: what was compared, float64 ``[T, H, D]``, or None.
        truth: what is right, likewise.
    """

    what: str
    first: tuple[int, ...]
    share: float
    rows: Tensor
    got: Tensor | None = None
    truth: Tensor | None = None

    def __str__(self) -> str:
        place = ", ".join(
            f"{axis} {i}"
            for axis, i in zip(("row", "head or group", "entry"), self.first, strict=False)
        )
        return f"{self.what}; first at {place}; {self.share:.1%} of rows wrong"


def compare(
    got: Tensor,
    truth: Tensor,
    *,
    eager: Tensor,
    dtype: torch.dtype,
    rows: Tensor | None = None,
    times: float = 1.0,
) -> Mismatch | None:
    """Judge ``got`` against ``truth``.

    Args:
        got: ``[Tq, H, D]`` or ``[Tq, H]``, any floating dtype.
        truth: the same shape, float64.
        eager: the same shape, from an eager run in ``dtype``; the yardstick of rule 2.
        dtype: precision of the inputs; chooses the bounds.
        rows: bool ``[Tq, H]``, the rows to compare; all by default.
        times: factor on the bounds.

    Returns:
        None if it passes.
    """
    flat = truth.ndim == 2
    got, truth, eager = (x.double().cpu() for x in (got, truth, eager))
    if flat:
        got, truth, eager = (x[..., None] for x in (got, truth, eager))
    if rows is None:
        rows = torch.ones(truth.shape[:2], dtype=torch.bool)
    if not bool(rows.any()):
        return None

    def mismatch(what: str, first: tuple[int, ...], wrong: Tensor) -> Mismatch:
        share = float((wrong & rows).sum() / rows.sum())
        return Mismatch(what, first, share, wrong & rows, got, truth)

    bad = (~torch.isfinite(got) | ~torch.isfinite(truth)) & (got != truth) & rows[..., None]
    if bool(bad.any()):
        first = _first(bad)
        what = f"got {got[first].item()} where {truth[first].item():.6g} is right"
        return mismatch(what, first[:2] if flat else first, bad.any(-1))
    finite = torch.isfinite(truth) & rows[..., None]
    error = torch.where(finite, got - truth, 0.0).abs()
    size = torch.where(finite, truth, 0.0)
    eager_error = torch.where(finite & torch.isfinite(eager), eager - truth, 0.0)
    yardstick = eager_error.abs().max()
    # A right result must still be rounded once to the dtype it is returned in; in a case of a few
    # numbers the eager run may be spared that by luck.
    returned = torch.bfloat16 if dtype == torch.float8_e4m3fn else dtype
    once = torch.finfo(returned).eps / 2 * size.abs().max()
    bound = times * TIMES_EAGER * float(torch.maximum(yardstick, once)) + FLOOR
    eager_l2 = float(eager_error.norm() / size.norm().clamp_min(1e-300))
    relative = times * max(RELATIVE_L2[dtype], min(TIMES_EAGER * eager_l2, MOST / times))
    row_limit = ROW_FACTOR * relative * size.norm(dim=-1) + FLOOR * size.shape[-1] ** 0.5
    wrong = (error.amax(-1) > bound) | (error.norm(dim=-1) > row_limit)
    if bool(wrong.any()):
        first = _first(wrong)
        worst = float(error.max())
        right = float(size[first].norm())
        row_share = float(error[first].norm()) / right if right else float("inf")
        what = (
            f"maximum error {worst:.3g} (bound {bound:.3g}), relative L2 of the first wrong row "
            f"{row_share:.3g} (bound {ROW_FACTOR * relative:.3g})"
        )
        return mismatch(what, first, wrong)
    total = float(error.norm() / size.norm().clamp_min(1e-300))
    if total > relative and float(error.max()) > FLOOR:
        what = f"relative L2 error {total:.3g} (bound {relative:.3g})"
        position = int(error.norm(dim=-1).argmax())
        first = (position // rows.shape[1], position % rows.shape[1])
        return mismatch(what, first, rows)
    return None


def _first(mask: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in mask.nonzero()[0])
