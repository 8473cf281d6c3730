"""Right calls of what reads pages and of what merges parts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from fuzz_draws import DTYPES, IMPLEMENTATIONS, Case, cases, draw, generator, pick_blocks, tiles
from fuzz_judging import judge_merge, numbers
from fuzz_model import merge
from fuzz_operations import judge_rows, unchanged
from hypothesis import strategies as st


@dataclass(frozen=True)
class Parts:
    """Partial attentions to be merged; ``empty`` is the share of parts without a key."""

    implementation: str
    count: int
    rows: int
    heads: int
    dim: int
    empty: float
    spread: float
    seed: int


PARTS = st.builds(
    Parts,
    implementation=st.sampled_from(list(IMPLEMENTATIONS)),
    count=st.integers(1, 5),
    rows=st.integers(0, 6),
    heads=st.integers(1, 3),
    dim=st.integers(1, 4),
    empty=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    spread=st.sampled_from([0.0, 1.0, 30.0, 300.0]),
    seed=st.integers(0, 2**32 - 1),
)


def check_merging(parts: Parts):
    """combine; an empty part holds NaN."""
    g = torch.Generator().manual_seed(parts.seed)
    shape = (parts.count, parts.rows, parts.heads)
    outs, lses = torch.randn(*shape, parts.dim, generator=g), torch.randn(shape, generator=g)
    lses *= parts.spread
    empty = torch.rand(shape, generator=g) < parts.empty
    lses[empty], outs[empty] = -torch.inf, torch.nan
    with unchanged(outs, lses):
        out, lse = IMPLEMENTATIONS[parts.implementation].combine(outs, lses)
    assert (out.dtype, lse.dtype) == (torch.float32, torch.float32)
    assert (out.shape, lse.shape) == (outs.shape[1:], lses.shape[1:])
    given = numbers(outs), numbers(lses)
    judge_merge(numbers(out), numbers(lse), *merge(*given), *given)


def paged(case, steps, g):
    """Arguments of sparse_decode, and the same keys in a row for each request.

    Slots behind a request's last key hold NaN, entries of the table behind its last page anything.
    """
    lengths = [max(q + before, steps) for q, before in case.lengths]
    used = [-(-n // case.block) for n in lengths]
    wide, spare = max(used) + case.seed % 2, case.seed % 3
    order = torch.randperm(sum(used) + spare, generator=g).tolist()
    shape = (len(order), case.groups, case.block, case.dim)
    k_pages, v_pages = draw(case, shape, g), draw(case, shape, g)
    table = torch.tensor([2**31 - 1, -1, 99, -(2**31)], dtype=torch.int32)[
        torch.randint(0, 4, (len(lengths), wide), generator=g)
    ]
    rows = []
    for b, count in enumerate(used):
        mine, order = order[:count], order[count:]
        table[b, :count] = torch.tensor(mine, dtype=torch.int32)
        tail = (lengths[b] - 1) % case.block + 1
        for pages in (k_pages, v_pages):
            pages[mine[-1], :, tail:] = torch.nan
        rows.append(
            [x[mine].transpose(1, 2).flatten(0, 1)[: lengths[b]] for x in (k_pages, v_pages)]
        )
    for pages in (k_pages, v_pages):
        pages[order] = torch.nan
    newest = torch.tensor([(n - steps + i) // case.block for n in lengths for i in range(steps)])
    selection = pick_blocks(case, len(newest), newest, g)
    return {
        "q": draw(case, (len(lengths), steps, case.heads, case.dim), g),
        "k_pages": k_pages,
        "v_pages": v_pages,
        "selection": selection.view(len(lengths), steps, case.groups, case.topk),
        "page_table": table,
        "k_lens": torch.tensor(lengths, dtype=torch.int32),
        "scale": case.scale,
    }, rows


@dataclass(frozen=True)
class Decoded:
    """A batch of requests of which the newest ``steps`` tokens ask."""

    case: Case
    steps: int


DECODED = st.builds(Decoded, case=cases(), steps=st.integers(1, 4))


def check_decoding(decoded: Decoded):
    """sparse_decode over pages in any order."""
    case, steps = decoded.case, decoded.steps
    given, rows = paged(case, steps, generator(case))
    tensors = [x for x in given.values() if isinstance(x, torch.Tensor)]
    with unchanged(*tensors), tiles(case.small_tiles):
        out, lse = case.run.sparse_decode(**given)
    assert (out.dtype, out.shape) == (DTYPES[case.dtype], given["q"].shape)
    assert (lse.dtype, lse.shape) == (torch.float32, given["q"].shape[:3])
    for b, (keys, values) in enumerate(rows):
        single = replace(case, lengths=((steps, len(keys) - steps),))
        judge_rows(single, given["q"][b], keys, values, given["selection"][b], out[b], lse[b])
