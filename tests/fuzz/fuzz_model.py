"""MSA in numpy float64, a row at a time, from the method's words and from none of its code.

Beside every number stands how large the terms were that made it: what rounding it may carry
follows from them (:mod:`fuzz_judging`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scored:
    """Block scores of one query and group, and the largest sum of absolute terms behind them."""

    scores: list[float]
    reach: float


@dataclass(frozen=True)
class Attended:
    """One query over one group: out [R, D], lse [R], reach [R] of its logits, values, tokens."""

    out: np.ndarray
    lse: np.ndarray
    reach: np.ndarray
    largest: float
    tokens: int


def score_blocks(query, keys, position, block, scale) -> Scored:
    """The best token at or before ``position`` of every block that has one.

    query [Di], keys [S, Di].
    """
    seen = keys[: position + 1]
    token = seen @ query * scale
    starts = range(0, position + 1, block)
    reach = float((np.abs(seen) @ np.abs(query)).max()) * abs(scale)
    return Scored([float(token[at : at + block].max()) for at in starts], reach)


def forced_blocks(position, block, local, sinks) -> set[int]:
    """The newest ``local`` and the first ``sinks`` blocks that the query sees."""
    newest = position // block
    return {b for b in range(newest + 1) if b > newest - local or b < sinks}


def keep_blocks(scores, position, block, topk, local, sinks) -> list[int]:
    """Forced blocks first, then by score; NaN ranks last, and of equals the lower block wins."""
    forced = forced_blocks(position, block, local, sinks)
    rest = [b for b in range(position // block + 1) if b not in forced]
    rest.sort(key=lambda b: (np.inf if np.isnan(scores[b]) else -scores[b], b))
    return sorted([*forced, *rest][:topk])


def attend_row(queries, keys, values, blocks, position, block, scale) -> Attended:
    """Softmax over the visible tokens of the blocks: queries [R, D], keys and values [S, D]."""
    seen = [t for t in range(position + 1) if t // block in blocks]
    heads = len(queries)
    if not seen:
        nothing = np.full(heads, -np.inf)
        return Attended(np.zeros_like(queries), nothing, np.zeros(heads), 0.0, 0)
    keys, values = keys[seen], values[seen]
    logits = queries @ keys.T * scale  # [R, seen]
    reach = (np.abs(queries) @ np.abs(keys).T).max(1) * abs(scale)
    top = logits.max(1, keepdims=True)
    weight = np.exp(logits - top)
    total = weight.sum(1, keepdims=True)
    lse = (top + np.log(total))[:, 0]
    largest = float(np.abs(values).max()) if values.size else 0.0
    return Attended(weight / total @ values, lse, reach, largest, len(seen))


def merge(outs, lses) -> tuple[np.ndarray, np.ndarray]:
    """Partial attentions outs [n, R, D], lses [n, R] over disjoint keys; -inf: an empty part."""
    out, total = np.zeros(outs.shape[1:]), np.full(lses.shape[1:], -np.inf)
    for row in np.ndindex(total.shape):
        parts = [n for n in range(len(outs)) if lses[(n, *row)] > -np.inf]
        if parts:
            top = max(lses[(n, *row)] for n in parts)
            weight = [np.exp(lses[(n, *row)] - top) for n in parts]
            total[row] = top + np.log(sum(weight))
            out[row] = sum(w * outs[(n, *row)] for n, w in zip(parts, weight, strict=True)) / sum(
                weight
            )
    return out, total
