"""MSA in plain Python lists, from the paper's words alone: for cases of a few dozen tokens.

No tensor operation, no shared helper: what a reader of the method would write on paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]
Rows = Sequence[Sequence[Vector]]  # [token][head][channel]


def dot(a: Vector, b: Vector) -> float:
    """The inner product."""
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def block_score(
    query: Vector, keys: Sequence[Vector], position: int, block: int, b: int, scale: float
) -> float:
    """The best score among the tokens of block ``b`` at or before ``position``."""
    best = -math.inf
    for token in range(b * block, min((b + 1) * block, len(keys))):
        if token <= position:
            best = max(best, dot(query, keys[token]) * scale)
    return best


def chosen_blocks(
    scores: Sequence[float], position: int, block: int, topk: int, local: int, sinks: int
) -> list[int]:
    """Ascending ids of the kept blocks of one query and group."""
    newest = position // block
    visible = list(range(newest + 1))
    kept = [b for b in visible if newest - b < local or b < sinks]
    while len(kept) < topk and len(kept) < len(visible):
        best = None
        for b in visible:
            if b not in kept and (best is None or scores[b] > scores[best]):
                best = b
        assert best is not None
        kept.append(best)
    return sorted(kept)


def attention_row(
    query: Vector,
    keys: Sequence[Vector],
    values: Sequence[Vector],
    blocks: Sequence[int],
    position: int,
    block: int,
    scale: float,
) -> tuple[list[float], float]:
    """Output and log-sum-exp of one query and head."""
    tokens = [t for t in range(len(keys)) if t // block in blocks and t <= position]
    if not tokens:
        return [0.0] * len(query), -math.inf
    logits = [dot(query, keys[t]) * scale for t in tokens]
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    total = math.fsum(weights)
    out = [
        math.fsum(w * values[t][c] for w, t in zip(weights, tokens, strict=True)) / total
        for c in range(len(query))
    ]
    return out, top + math.log(total)


def attend_sequence(
    q: Rows,
    k: Rows,
    v: Rows,
    q_idx: Rows,
    k_idx: Rows,
    *,
    block: int,
    topk: int,
    local_blocks: int,
    sink_blocks: int,
    scale: float,
    index_scale: float,
) -> tuple[list[list[list[float]]], list[list[list[int]]]]:
    """One sequence: outputs ``[t][Hq][D]`` and kept blocks ``[t][Hkv][..]``."""
    outputs, selections = [], []
    groups = len(k[0])
    share = len(q[0]) // groups
    for i in range(len(q)):
        position = len(k) - len(q) + i
        kept = []
        for g in range(groups):
            keys = [token[0] for token in k_idx]
            scores = [
                block_score(q_idx[i][g], keys, position, block, b, index_scale)
                for b in range(position // block + 1)
            ]
            kept.append(chosen_blocks(scores, position, block, topk, local_blocks, sink_blocks))
        row = []
        for h in range(len(q[0])):
            g = h // share
            out, _ = attention_row(
                q[i][h],
                [token[g] for token in k],
                [token[g] for token in v],
                kept[g],
                position,
                block,
                scale,
            )
            row.append(out)
        outputs.append(row)
        selections.append(kept)
    return outputs, selections
