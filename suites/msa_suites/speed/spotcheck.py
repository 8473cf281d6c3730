"""Sampled rows of a long attention, checked in float64 in milliseconds.

Nothing is timed on a red check, but the specification takes minutes at the lengths that are
timed. A row of MSA depends on nothing but its own query, so a sample of rows is checked exactly.
Written from the definition, apart from :mod:`msa.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

#: Relative L2 error of a sampled row, by dtype: the bounds of the contract.
BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Inputs of one sequence and the settings of the pipeline.

    Attributes:
        q: ``[Tq, Hq, D]``; k, v: ``[T, Hkv, D]``; q_idx: ``[Tq, Hkv, Di]``; k_idx: ``[T, 1, Di]``.
        block: tokens per block.
        topk: blocks kept, the local block among them.

    What is expected of a row is computed once and kept: a series is checked in every block.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_idx: Tensor
    k_idx: Tensor
    block: int
    topk: int
    _kept: dict[tuple[object, ...], Any] = field(default_factory=dict, init=False, repr=False)

    def position(self, row: int) -> int:
        """Position of a query row among the keys."""
        return row + len(self.k) - len(self.q)

    def keep(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What is kept under ``key``, made where it is not there yet."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept


def sampled_rows(tokens: int, count: int, seed: int) -> list[int]:
    """``count`` rows of ``tokens``, the first, the last and the edges of the budget among them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(tokens, (count,), generator=generator).tolist()
    return sorted({0, tokens - 1, *drawn})


def row_scores(inputs: Pipeline, row: int) -> Tensor:
    """Float64 block scores ``[Hkv, row // block + 1]`` of one query."""
    return inputs.keep((row,), partial(_row_scores, inputs, row))


def _row_scores(inputs: Pipeline, row: int) -> Tensor:
    token = torch.einsum(
        "gd,sd->gs",
        inputs.q_idx[row].double(),
        inputs.k_idx[: inputs.position(row) + 1, 0].double(),
    )
    parts = token.split(inputs.block, dim=1)
    return torch.stack([part.amax(1) for part in parts], 1)


def row_attention(inputs: Pipeline, row: int, group: int, blocks: list[int]) -> Tensor:
    """Float64 attention ``[R, D]`` of one query's heads of ``group`` over ``blocks``."""
    key = (row, group, *blocks)
    return inputs.keep(key, partial(_row_attention, inputs, row, group, blocks))


def _row_attention(inputs: Pipeline, row: int, group: int, blocks: list[int]) -> Tensor:
    stop = inputs.position(row) + 1
    tokens = torch.cat(
        [torch.arange(b * inputs.block, min((b + 1) * inputs.block, stop)) for b in blocks]
    )
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
            blocks = _best(scores[group], inputs.topk)
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
    best = [[_best(row_scores(inputs, row)[g], inputs.topk) for g in groups] for row in rows]
    padded = [[ids + [-1] * (inputs.topk - len(ids)) for ids in row] for row in best]
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
    shape = (len(inputs.q), inputs.k.shape[1], inputs.topk)
    return _misfit("selection", selection, shape, (torch.int32, torch.int64))


def check_scores(inputs: Pipeline, scores: object, rows: Sequence[int], scale: float) -> str:
    """What is wrong with ``block_scores``' answer on ``rows``, or an empty text."""
    shape = (len(inputs.q), inputs.k.shape[1], -(-len(inputs.k) // inputs.block))
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
            wanted = _best(scores[group], inputs.topk)
            chosen = sorted(b for b in selection[row, group].tolist() if b >= 0)
            problem = _selection_problem(scores[group], wanted, chosen, inputs, row, group)
            if problem:
                return f"row {row}, group {group}: {problem}"
    return ""


def _best(scores: Tensor, topk: int) -> list[int]:
    """The local block and the best of the rest."""
    ranked = scores.clone()
    ranked[-1] = torch.inf
    return sorted(ranked.topk(min(topk, len(scores))).indices.tolist())


def _selection_problem(
    scores: Tensor, wanted: list[int], chosen: list[int], inputs: Pipeline, row: int, group: int
) -> str:
    if len(set(chosen)) != len(wanted) or len(chosen) != len(wanted) or chosen[-1] >= len(scores):
        return f"selection: wanted {len(wanted)} distinct visible blocks, got {chosen}"
    if len(scores) - 1 not in chosen:
        return f"selection: wanted the local block {len(scores) - 1}, got {chosen}"
    missed = set(wanted) - set(chosen)
    if not missed:
        return ""
    eps = torch.finfo(torch.float32).eps  # scores are accumulated in float32 for every dtype
    q, k = inputs.q_idx[row, group].double(), inputs.k_idx[: inputs.position(row) + 1, 0].double()
    slack = 4 * eps * float(q.norm()) * float(k.norm(dim=1).max())
    worst = min((float(scores[b]) for b in chosen if b != len(scores) - 1), default=0.0)
    if max(float(scores[b]) for b in missed) > worst + slack:
        return f"selection: wanted blocks {wanted}, got {chosen}"
    return ""
