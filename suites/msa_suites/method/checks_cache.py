"""Checks of the paged cache by itself, and of the measures of recall, against plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from msa_harness.client import Worker
from msa_suites.correctness.bruteforce import chosen_blocks

_SUBJECT = "msa_suites.method.subject_cache"
#: Of the requests, in the order in which they come: one more than the pages hold at a time.
_TOKENS = (70, 45, 90)
_STEPS, _GROUPS, _HEADS, _DIM, _INDEX_DIM = 3, 2, 2, 24, 12
#: No scale is the root of a width, and no choice a default.
_HOW: dict[str, Any] = {
    "block": 12,
    "topk": 5,
    "local_blocks": 2,
    "sink_blocks": 1,
    "scale": 0.31,
    "index_scale": 0.17,
}
#: dtype -> relative error: of float32, and of what bfloat16 rounds.
_BOUND = {"float32": 1e-4, "bfloat16": 2e-2}


def check_cache_variants(worker: Worker) -> str:
    """One index head or one a group, float32 and bfloat16, pages that are given back and reused."""
    worker.load("reused", f"{_SUBJECT}:reused")
    for index_heads in (1, _GROUPS):
        for dtype in _BOUND:
            what = f"{index_heads} index heads, {dtype}"
            inputs = [_drawn(tokens, index_heads, dtype) for tokens in _TOKENS]
            found = worker.call("reused", "", [inputs, dtype, _HOW])
            if found["free"] != found["pages"]:
                return f"{what}: wanted {found['pages']} free pages in the end, got {found['free']}"
            for b, x in enumerate(inputs):
                if problem := _request_problem(x, found["answers"][b], _BOUND[dtype]):
                    return f"{what}: request {b}: {problem}"
    return ""


def _drawn(tokens: int, index_heads: int, dtype: str) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(tokens)
    shapes = {
        "q": (_STEPS, _GROUPS * _HEADS, _DIM),
        "k": (tokens, _GROUPS, _DIM),
        "v": (tokens, _GROUPS, _DIM),
        "q_idx": (_STEPS, _GROUPS, _INDEX_DIM),
        "k_idx": (tokens, index_heads, _INDEX_DIM),
    }
    return {
        name: torch.randn(shape, generator=draw).to(getattr(torch, dtype))
        for name, shape in shapes.items()
    }


def _request_problem(x: dict[str, Tensor], answer: Sequence[Tensor], bound: float) -> str:
    """The newest rows of one request, each by itself in float64."""
    out, lse, selection = answer
    wide = {name: one.double() for name, one in x.items()}
    tokens, block = len(wide["k"]), _HOW["block"]
    for row in range(_STEPS):
        t = tokens - _STEPS + row
        for g in range(_GROUPS):
            keys = wide["k_idx"][: t + 1, min(g, wide["k_idx"].shape[1] - 1)]
            score = keys @ wide["q_idx"][row, g] * _HOW["index_scale"]
            best = [float(part.max()) for part in score.split(block)]
            budget = _HOW["topk"], _HOW["local_blocks"], _HOW["sink_blocks"]
            kept = chosen_blocks(best, t, block, *budget)
            got = [int(b) for b in selection[row, g] if b >= 0]
            if sorted(got) != sorted(kept):
                return f"row {row}, group {g}: wanted blocks {sorted(kept)}, got {sorted(got)}"
            seen = torch.tensor([s for s in range(t + 1) if s // block in kept])
            mine = slice(g * _HEADS, (g + 1) * _HEADS)
            logits = wide["q"][row, mine] @ wide["k"][seen, g].T * _HOW["scale"]
            want = torch.softmax(logits, -1) @ wide["v"][seen, g]
            error = float((out[row, mine].double() - want).norm() / want.norm())
            if not error <= bound:
                return f"row {row}, group {g}: relative error {error:.1e}"
            off = float((lse[row, mine].double() - torch.logsumexp(logits, -1)).abs().max())
            if not off <= 10 * bound:
                return f"row {row}, group {g}: LSE off by {off:.1e}"
    return ""


def check_recall(worker: Worker) -> str:
    """Shares of the attention mass, and of the oracle's blocks, that a selection keeps."""
    worker.load("recalled", f"{_SUBJECT}:recalled")
    draw = torch.Generator().manual_seed(9)
    rows, columns, block, topk, local, sinks = 60, 10, 6, 5, 2, 1
    mass = torch.rand((rows, _GROUPS, columns), generator=draw)
    selection = torch.stack(
        [torch.randperm(columns, generator=draw)[:topk] for _ in range(rows * _GROUPS)]
    ).view(rows, _GROUPS, topk)
    positions = torch.arange(rows)
    newest = (positions // block)[:, None, None]
    mass = mass.masked_fill(torch.arange(columns) > newest, -torch.inf)
    selection = torch.where(selection <= newest, selection, -1).int()
    how = {"block": block, "topk": topk, "local_blocks": local, "sink_blocks": sinks}
    kept, shared = worker.call("recalled", "", [mass, selection, positions, how])
    for t in range(rows):
        for g in range(_GROUPS):
            chosen = {int(b) for b in selection[t, g] if b >= 0}
            last = t // block
            free = list(range(sinks, last - local + 1))
            slots = topk - (last + 1 - len(free))
            of_mass = sum(float(mass[t, g, b]) for b in chosen)
            ranked = sorted(free, key=lambda b: -float(mass[t, g, b]))[: max(slots, 0)]
            want = len(chosen & set(ranked)) / slots if 0 < slots < len(free) else float("nan")
            got = float(shared[t, g])
            if abs(float(kept[t, g]) - of_mass) > 1e-5:
                return f"row {t}: wanted {of_mass:.4f} of the mass, got {float(kept[t, g]):.4f}"
            if abs(got - want) > 1e-5 or (got != got) != (want != want):
                return f"row {t}: wanted {want:.4f} of the oracle's blocks, got {got:.4f}"
    return ""
