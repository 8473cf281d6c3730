"""Right calls of every operation: the answer is the model's, and the inputs are as before."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace

import torch
from fuzz_draws import (
    Case,
    cases,
    draw,
    generator,
    index_tensors,
    main_tensors,
    pick_blocks,
    tiles,
)
from fuzz_judging import (
    judge_attention,
    judge_scores,
    judge_selection,
    numbers,
)
from fuzz_model import attend_row, keep_blocks, score_blocks
from hypothesis import strategies as st


@contextlib.contextmanager
def unchanged(*tensors):
    """The call inside leaves its inputs alone."""
    before = [x.clone() for x in tensors]
    yield
    for x, was in zip(tensors, before, strict=True):
        assert bool(((x == was) | (x.isnan() & was.isnan())).all()), "an input was written to"


def model_scores(case, q_idx, k_idx):
    """Of every query and group: (row, group, position, scores)."""
    asked, keys = numbers(q_idx), numbers(k_idx)
    for row, position, where in case.rows():
        for g in range(case.groups):
            mine = keys[where, g if keys.shape[1] > 1 else 0]
            yield (
                row,
                g,
                position,
                score_blocks(asked[row, g], mine, position, case.block, case.index_scale),
            )


def model_rows(case, q, k, v, selection):
    """Of every query and group: (row, slice of its heads, what attention gives)."""
    q, k, v = (numbers(x) for x in (q, k, v))
    for row, position, where in case.rows():
        for g in range(case.groups):
            heads = slice(g * case.share, (g + 1) * case.share)
            chosen = set(selection[row, g].tolist())
            keys, values = k[where, g], v[where, g]
            yield (
                row,
                heads,
                attend_row(q[row, heads], keys, values, chosen, position, case.block, case.scale),
            )


def _hide_unread(case, k, v, selection):
    """NaN in every slot that no query of its group reads."""
    read = torch.zeros(k.shape[:2], dtype=torch.bool)
    for row, position, where in case.rows():
        blocks = torch.arange(position + 1) // case.block
        for g in range(case.groups):
            read[where.start : where.start + position + 1, g] |= torch.isin(
                blocks, selection[row, g]
            )
    for x in (k, v):
        x[~read] = torch.nan


def check_scores(case: Case):
    """block_scores."""
    q_idx, k_idx = index_tensors(case, generator(case))
    with unchanged(q_idx, k_idx), tiles(case.small_tiles):
        got = case.run.block_scores(q_idx, k_idx, **case.packing(), scale=case.index_scale)
    longest = max(q + before for q, before in case.lengths)
    assert got.dtype == torch.float32
    assert got.shape == (len(q_idx), case.groups, -(-longest // case.block))
    found = numbers(got)
    for row, g, _, scored in model_scores(case, q_idx, k_idx):
        judge_scores(found[row, g], scored, case.index_dim)


def _hard_scores(case, g):
    """Scores that tie, or are no numbers, or differ in the sign of zero only."""
    longest = max(q + before for q, before in case.lengths)
    shape = (
        sum(q for q, _ in case.lengths),
        case.groups,
        -(-longest // case.block) + case.seed % 2,
    )
    scores = draw(replace(case, dtype="float32"), shape, g)
    if case.chosen in ("hostile", "none"):
        odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 0.0, 1e-45, -3.4e38])
        odd = odd[torch.randint(0, len(odd), shape, generator=g)]
        rare = 0.3 if case.chosen == "hostile" else 1.0
        scores = torch.where(torch.rand(shape, generator=g) < rare, odd, scores)
    return scores


def check_selecting(case: Case):
    """select_blocks, to the very block: nothing is rounded."""
    scores = _hard_scores(case, generator(case))
    with unchanged(scores), tiles(case.small_tiles):
        got = case.run.select_blocks(scores, **case.ranking())
    assert (got.dtype, tuple(got.shape)) == (torch.int32, (*scores.shape[:2], case.topk))
    found, given = got.tolist(), numbers(scores)
    for row, position, _ in case.rows():
        for g in range(case.groups):
            kept = keep_blocks(
                given[row, g], position, case.block, case.topk, case.local, case.sinks
            )
            assert found[row][g] == kept + [-1] * (case.topk - len(kept)), (row, g, kept)


def check_attention(case: Case):
    """sparse_attention of any selection."""
    g = generator(case)
    q, k, v = main_tensors(case, g)
    newest = torch.tensor([p // case.block for _, p, _ in case.rows()], dtype=torch.int64)
    selection = pick_blocks(case, len(q), newest, g)
    if case.unread_nan:
        _hide_unread(case, k, v, selection)
    with unchanged(q, k, v, selection), tiles(case.small_tiles):
        out, lse = case.run.sparse_attention(q, k, v, selection, **case.packing(), scale=case.scale)
    judge_rows(case, q, k, v, selection, out, lse)


def judge_rows(case, q, k, v, selection, out, lse):
    assert (out.dtype, out.shape, lse.dtype) == (q.dtype, q.shape, torch.float32)
    assert lse.shape == q.shape[:2]
    found, sums = numbers(out), numbers(lse)
    for row, heads, want in model_rows(case, q, k, v, selection):
        judge_attention(found[row, heads], sums[row, heads], want, q.dtype)


def judge_pipeline(case, tensors, out, selection, first=0):
    """Rows from ``first`` on: the selection against the scores, the output against that."""
    q, k, v, q_idx, k_idx = tensors
    kept = selection.tolist()
    for row, g, position, scored in model_scores(case, q_idx, k_idx):
        if row >= first:
            judge_selection(
                kept[row - first][g],
                scored,
                position,
                block=case.block,
                topk=case.topk,
                local=case.local,
                sinks=case.sinks,
                dim=case.index_dim,
                exact=case.exact,
            )
    found = numbers(out)
    whole = torch.cat([selection.new_full((first, *selection.shape[1:]), -1), selection])
    for row, heads, want in model_rows(case, q, k, v, whole):
        if row >= first:
            judge_attention(found[row - first, heads], want.lse, want, q.dtype)


def check_pipeline(case: Case):
    """attend: scores, selection and attention in one call."""
    g = generator(case)
    tensors = [*main_tensors(case, g), *index_tensors(case, g)]
    with unchanged(*tensors), tiles(case.small_tiles):
        out, selection = case.run.attend(
            *tensors, **case.ranking(), scale=case.scale, index_scale=case.index_scale
        )
    assert (out.dtype, out.shape) == (tensors[0].dtype, tensors[0].shape)
    assert selection.dtype == torch.int32
    judge_pipeline(case, tensors, out, selection)


@dataclass(frozen=True)
class Chunks:
    """One prompt, and where it is cut: each chunk attends everything up to its own end."""

    case: Case
    cuts: tuple[int, ...]


def check_chunks(chunks: Chunks):
    """A prompt in chunks gives the rows of the whole prompt."""
    case, g = chunks.case, generator(chunks.case)
    q, k, v, q_idx, k_idx = [*main_tensors(case, g), *index_tensors(case, g)]
    edges = sorted({0, len(q), *(cut % (len(q) + 1) for cut in chunks.cuts)})
    for start, stop in itertools.pairwise(edges):
        part = replace(case, lengths=((stop - start, start),))
        mine = (q[start:stop], k[:stop], v[:stop], q_idx[start:stop], k_idx[:stop])
        with tiles(case.small_tiles):
            out, selection = case.run.attend(
                *mine, **part.ranking(), scale=case.scale, index_scale=case.index_scale
            )
        whole = replace(case, lengths=((stop, 0),))
        upto = (q[:stop], k[:stop], v[:stop], q_idx[:stop], k_idx[:stop])
        judge_pipeline(whole, upto, out, selection, first=start)


PROMPTS = st.builds(
    Chunks,
    case=cases(st.integers(2, 40).map(lambda n: ((n, 0),))),
    cuts=st.lists(st.integers(0, 1000), min_size=1, max_size=4).map(tuple),
)
