"""Sampled rows of a long attention, checked in float64 in milliseconds.

Nothing is timed on a red check, but the specification takes minutes at the lengths that are
timed. A row of MSA depends on nothing but its own query, so a sample of rows is checked exactly.
Written from the definition, apart from :mod:`msa.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

from msa_suites.case import Case

T = TypeVar("T")

#: Relative L2 error of a sampled row, by dtype: the bounds of the contract.
BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Packed inputs of the pipeline.

    Attributes:
        q: ``[Tq, Hq, D]``; k, v: ``[T, Hkv, D]``; q_idx: ``[Tq, Hkv, Di]``; k_idx: ``[T, 1, Di]``.
        case: lengths of the sequences and settings of the selection.

    What is expected of a row is computed once and kept: a series is checked in every block.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_idx: Tensor
    k_idx: Tensor
    case: Case
    _kept: dict[tuple[object, ...], Any] = field(default_factory=dict, init=False, repr=False)

    def context(self, row: int) -> tuple[int, int]:
        """The keys that a query row sees: the first, and one past the last."""
        first_query = first_key = 0
        for q_len, k_len in zip(self.case.q_lens, self.case.k_lens, strict=True):
            if row < first_query + q_len:
                return first_key, first_key + k_len - q_len + row - first_query + 1
            first_query, first_key = first_query + q_len, first_key + k_len
        raise IndexError(f"row: wanted one below {first_query}, got {row}")

    def keep(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What is kept under ``key``, made where it is not there yet."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept


def sampled_rows(case: Case, count: int) -> list[int]:
    """``count`` query rows of a case, and the first and the last of every sequence."""
    generator = torch.Generator().manual_seed(case.seed)
    ends = list(accumulate(case.q_lens))
    drawn = torch.randint(ends[-1], (count,), generator=generator).tolist()
    borders = [
        row for end, n in zip(ends, case.q_lens, strict=True) if n for row in (end - n, end - 1)
    ]
    return sorted({*borders, *drawn})


def row_scores(inputs: Pipeline, row: int) -> Tensor:
    """Float64 scores ``[Hkv, n]`` of the ``n`` blocks that one query sees."""
    return inputs.keep((row,), partial(_row_scores, inputs, row))


def _row_scores(inputs: Pipeline, row: int) -> Tensor:
    first, stop = inputs.context(row)
    keys = inputs.k_idx[first:stop, 0].double()
    token = torch.einsum("gd,sd->gs", inputs.q_idx[row].double(), keys)
    parts = token.split(inputs.case.block, dim=1)
    return torch.stack([part.amax(1) for part in parts], 1)


def row_attention(inputs: Pipeline, row: int, group: int, blocks: list[int]) -> Tensor:
    """Float64 attention ``[R, D]`` of one query's heads of ``group`` over ``blocks``."""
    key = (row, group, *blocks)
    return inputs.keep(key, partial(_row_attention, inputs, row, group, blocks))


def _row_attention(inputs: Pipeline, row: int, group: int, blocks: list[int]) -> Tensor:
    first, stop = inputs.context(row)
    visible = torch.arange(first, stop).split(inputs.case.block)
    tokens = torch.cat([visible[b] for b in blocks])
    heads = inputs.q.shape[1] // inputs.k.shape[1]
    q = inputs.q[row, group * heads : (group + 1) * heads].double()
    keys, values = inputs.k[tokens, group].double(), inputs.v[tokens, group].double()
    return torch.softmax(q @ keys.T * q.shape[-1] ** -0.5, -1) @ values


def check_pipeline(
    inputs: Pipeline,
    out: object,
    selection: object,
    rows: Sequence[int],
    *,
    value_scale: float = 1.0,
) -> str:
    """What is wrong with ``attend``'s answer on ``rows``, or an empty text.

    The values were multiplied by ``value_scale``. A block may stand in for another only where their
    scores are closer than rounding. ``selection`` None: it was not said.
    """
    bound = BOUNDS[inputs.q.dtype]
    if problem := _misfit("out", out, inputs.q.shape, (inputs.q.dtype,)):
        return problem
    if selection is not None and (problem := _misfit_selection(inputs, selection)):
        return problem
    assert isinstance(out, Tensor) and (selection is None or isinstance(selection, Tensor))
    if _as_expected(inputs, out, selection, rows, value_scale):
        return ""
    heads = inputs.q.shape[1] // inputs.k.shape[1]
    for row in rows:
        scores = row_scores(inputs, row)
        for group in range(scores.shape[0]):
            blocks = _best(scores[group], inputs.case)
            if selection is not None:
                chosen = sorted(b for b in selection[row, group].tolist() if b >= 0)
                problem = _selection_problem(scores[group], blocks, chosen, inputs, row, group)
                if problem:
                    return f"row {row}, group {group}: {problem}"
                blocks = chosen
            want = row_attention(inputs, row, group, blocks) * value_scale
            have = out[row, group * heads : (group + 1) * heads].double()
            error = float((have - want).norm() / want.norm())
            if not error <= bound:
                return (
                    f"row {row}, group {group}: relative error of the output {error:.1e}, "
                    f"wanted at most {bound:.0e}"
                )
    return ""


def _as_expected(
    inputs: Pipeline, out: Tensor, selection: Tensor | None, rows: Sequence[int], scale: float
) -> bool:
    """Whether all rows together are as the best blocks make them: a short way to the usual answer.

    Where they are not, a near tie or a mistake, each row is looked at by itself.
    """
    best, want = inputs.keep(("all", *rows), partial(_expected, inputs, rows))
    where = torch.tensor(rows)
    if selection is not None and not torch.equal(selection[where].to(best.dtype), best):
        return False
    have = out[where].double().unflatten(1, (inputs.k.shape[1], -1)).flatten(2)
    error = (have - want * scale).norm(dim=2) / (want * scale).norm(dim=2)
    return bool((error <= BOUNDS[inputs.q.dtype]).all())


def _expected(inputs: Pipeline, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Best blocks ``[n, Hkv, topk]``, padded with -1, and outputs ``[n, Hkv, R * D]`` of rows."""
    groups = range(inputs.k.shape[1])
    best = [[_best(row_scores(inputs, row)[g], inputs.case) for g in groups] for row in rows]
    padded = [[ids + [-1] * (inputs.case.topk - len(ids)) for ids in row] for row in best]
    want = [
        torch.stack([row_attention(inputs, row, g, best[i][g]).flatten() for g in groups])
        for i, row in enumerate(rows)
    ]
    return torch.tensor(padded), torch.stack(want)


def _misfit(name: str, got: object, shape: Sequence[int], dtypes: Sequence[torch.dtype]) -> str:
    if isinstance(got, Tensor) and list(got.shape) == list(shape) and got.dtype in dtypes:
        return ""
    wanted = f"{' or '.join(map(str, dtypes))} {list(shape)}"
    what = f"{got.dtype} {list(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
    return f"{name}: wanted {wanted}, got {what}"


def _misfit_selection(inputs: Pipeline, selection: object) -> str:
    shape = (len(inputs.q), inputs.k.shape[1], inputs.case.topk)
    return _misfit("selection", selection, shape, (torch.int32, torch.int64))


def check_scores(inputs: Pipeline, scores: object, rows: Sequence[int], scale: float) -> str:
    """What is wrong with ``block_scores``' answer on ``rows``, or an empty text."""
    shape = (len(inputs.q), inputs.k.shape[1], -(-max(inputs.case.k_lens) // inputs.case.block))
    if problem := _misfit("scores", scores, shape, (torch.float32,)):
        return problem
    assert isinstance(scores, Tensor)
    for row in rows:
        want = row_scores(inputs, row) * scale
        have = scores[row, :, : want.shape[1]].double()
        error = float((have - want).norm() / want.norm())
        if not error <= BOUNDS[torch.float32]:
            return f"row {row}: relative error of the scores {error:.1e}"
        if bool((scores[row, :, want.shape[1] :] != -torch.inf).any()):
            return f"row {row}: wanted -inf where a block has no visible token"
    return ""


def check_selection(inputs: Pipeline, selection: object, rows: Sequence[int]) -> str:
    """What is wrong with ``select_blocks``' answer on ``rows``, or an empty text."""
    if problem := _misfit_selection(inputs, selection):
        return problem
    assert isinstance(selection, Tensor)
    for row in rows:
        scores = row_scores(inputs, row)
        for group in range(scores.shape[0]):
            wanted = _best(scores[group], inputs.case)
            chosen = sorted(b for b in selection[row, group].tolist() if b >= 0)
            problem = _selection_problem(scores[group], wanted, chosen, inputs, row, group)
            if problem:
                return f"row {row}, group {group}: {problem}"
    return ""


def _forced(blocks: int, case: Case) -> set[int]:
    """Local and sink blocks of a query that sees ``blocks`` blocks."""
    return {*range(min(case.sink_blocks, blocks)), *range(blocks)[-case.local_blocks :]}


def _best(scores: Tensor, case: Case) -> list[int]:
    """The forced blocks and the best of the rest."""
    ranked = scores.clone()
    ranked[list(_forced(len(scores), case))] = torch.inf
    return sorted(ranked.topk(min(case.topk, len(scores))).indices.tolist())


def _selection_problem(
    scores: Tensor, wanted: list[int], chosen: list[int], inputs: Pipeline, row: int, group: int
) -> str:
    if len(set(chosen)) != len(wanted) or len(chosen) != len(wanted) or chosen[-1] >= len(scores):
        return f"selection: wanted {len(wanted)} distinct visible blocks, got {chosen}"
    forced = _forced(len(scores), inputs.case)
    if left_out := forced - set(chosen):
        return f"selection: wanted the forced block {min(left_out)}, got {chosen}"
    missed = set(wanted) - set(chosen)
    if not missed:
        return ""
    eps = torch.finfo(torch.float32).eps  # scores are accumulated in float32 for every dtype
    first, stop = inputs.context(row)
    q, k = inputs.q_idx[row, group].double(), inputs.k_idx[first:stop, 0].double()
    slack = 4 * eps * float(q.norm()) * float(k.norm(dim=1).max())
    worst = min((float(scores[b]) for b in chosen if b not in forced), default=0.0)
    if max(float(scores[b]) for b in missed) > worst + slack:
        return f"selection: wanted blocks {wanted}, got {chosen}"
    return ""
