"""What the wrong numbers themselves say: where they stand, and how they relate to the right ones.

It needs no idea of what was computed, so it serves every comparison: gradients, merges, pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from msa_suites.correctness.passrule import Mismatch

#: Errors below this share of a row are no other method, only fewer bits.
_FEWER_BITS = 0.03
#: How closely a constant factor must explain a result.
_EXACTLY = 1e-3
_BASE_TWO = 1.442695


def of_empty_rows(wrong: Mismatch) -> str:
    """Whether just those rows are NaN that have no block at all."""
    if wrong.got is None or wrong.truth is None:
        return ""
    lost = wrong.rows & ~wrong.got.isfinite().all(-1)
    empty = (wrong.truth == 0).all(-1) | wrong.truth.isneginf().all(-1)
    if bool(lost.any()) and bool(empty[lost].all()):
        return "rows without any block are not handled (-inf minus -inf, or 0 / 0)"
    return ""


def look(wrong: Mismatch, starts: Sequence[int] = ()) -> str:
    """What a mismatch looks like, or "".

    Args:
        wrong: with the numbers that were compared.
        starts: packed row at which each sequence begins, and the end; empty where rows are no
            packed queries.
    """
    if wrong.got is None or wrong.truth is None:
        return ""
    got, truth, rows = wrong.got, wrong.truth, wrong.rows
    if not bool(got[rows].isfinite().all()):
        return ""
    mine, right = got[rows], truth[rows]
    zero = (mine == 0).all(-1)
    if bool(zero.all()):
        return f"{_place(rows, starts)} never written: zero"
    if float(zero.double().mean()) > 0.5:
        return f"{_place(rows & (got == 0).all(-1), starts)} never written: zero"
    finite = right.isfinite()
    mine, right = mine[finite], right[finite]
    size = float(right.norm())
    if not size:
        return ""
    factor = float(mine @ right) / size**2
    if abs(factor - 1) > _EXACTLY and float((mine - factor * right).norm()) < _EXACTLY * size:
        if abs(factor - _BASE_TWO) < _EXACTLY:
            return "the logarithm is to base 2"
        return f"everything is {factor:.4g} times what is right: a scale, or a weight that is lost"
    if float((mine - right).norm()) < _FEWER_BITS * size:
        return "right but for few bits: arithmetic in lower precision (TF32, sums in bfloat16)"
    if got.shape[1] > 1 and bool((got == got[:, :1]).all()):
        return "every head has the result of the first"
    place = _place(rows, starts)
    return f"{place} wrong" if place != "rows" else ""


def _place(rows: Tensor, starts: Sequence[int]) -> str:
    """Which of the rows ``[T, H]`` are meant, in words; "rows" where no pattern is seen."""
    heads, tokens = rows.any(0).nonzero()[:, 0], rows.any(1).nonzero()[:, 0]
    words = []
    if len(heads) < rows.shape[1]:
        words.append(_listed("heads", heads.tolist()))
    if len(starts) > 2:
        hit = [b for b, (a, z) in enumerate(pairwise(starts)) if bool(rows[a:z].any())]
        if hit == list(range(1, len(starts) - 1)):
            words.append(
                "all sequences of the batch but the first (an offset that is added twice or left "
                "out)"
            )
        elif len(hit) < len(starts) - 1:
            words.append(_listed("sequences", hit) + " of the batch")
    first, last = int(tokens[0]), int(tokens[-1])
    if not words and (first or last < len(rows) - 1) and len(tokens) == last - first + 1:
        words.append(f"rows {first} to {last}")
    return " and ".join(words) or "rows"


def _listed(what: str, shown: Sequence[int]) -> str:
    """``heads 8 to 15`` or the first of them."""
    if len(shown) > 1 and shown[-1] - shown[0] == len(shown) - 1:
        return f"{what} {shown[0]} to {shown[-1]}"
    return f"{what} {', '.join(map(str, shown[:8]))}" + (", ..." if len(shown) > 8 else "")
