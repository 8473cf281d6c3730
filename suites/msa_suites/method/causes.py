"""Mistakes of the index branch and of its cache, each played through with the oracle's layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from msa_suites.method import oracle

#: Share of the rows that a mistake must give alike, and that the right layer must not.
_ALIKE = 0.9
#: Rows of a sequence that are tried, the newest: its oldest keep every block.
_TRIED = 40

#: Index keys that a query finds: (keys [t + 1, Di], tokens in the cache) -> as many.
Found = Callable[[Tensor, int], Tensor]


def _pairs(x: Tensor, shape: oracle.Shape) -> Tensor:
    """Neighbouring channels are turned, not halves."""
    half = shape.rotary // 2
    order = torch.arange(shape.rotary).view(2, half).T.flatten()
    shuffled = torch.cat([x[..., : shape.rotary][..., order.argsort()], x[..., shape.rotary :]], -1)
    turned = oracle.rotated(shuffled, shape)
    return torch.cat([turned[..., : shape.rotary][..., order], turned[..., shape.rotary :]], -1)


def _spread(x: Tensor, shape: oracle.Shape) -> Tensor:
    """The same channels, with the frequencies of twice as many."""
    return oracle.rotated(x, replace(shape, theta=shape.theta**0.5))


_TURNS: tuple[tuple[str, oracle.Turn], ...] = (
    ("the index heads are not rotated", lambda x, _: x),
    ("the index heads are rotated in pairs of neighbours, not in halves", _pairs),
    ("the rotation has the frequencies of another number of channels", _spread),
)
#: Gains as they are stored -> as a wrong norm would use them, less the 1 that is added.
_GAINS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("the gain 1 + w of the norm is applied twice", lambda w: (1 + w) ** 2 - 1),
    ("the gain of the norm is w, not 1 + w", lambda w: w - 1),
)


def of_layer(
    selection: Tensor, hidden: Tensor, weights: Mapping[str, Tensor], shape: oracle.Shape
) -> str:
    """The mistake in norms or rotation that gives this selection ``[T, Hkv, k]``, or ""."""

    def other(turn: oracle.Turn, gains: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        changed = {n: gains(w) if n.endswith("norm.weight") else w for n, w in weights.items()}
        return oracle.index_heads(hidden, changed, shape, turn)

    if _alike(selection, *other(oracle.rotated, lambda w: w), shape, _whole, range(len(hidden))):
        return ""  # the selection is right, and any mistake of little effect would explain it
    tried: list[tuple[str, tuple[Tensor, Tensor]]] = [
        (words, other(turn, lambda w: w)) for words, turn in _TURNS
    ]
    tried += [(words, other(oracle.rotated, gains)) for words, gains in _GAINS]
    for words, (q_idx, k_idx) in tried:
        if _alike(selection, q_idx, k_idx, shape, _whole, range(len(hidden))):
            return words
    return ""


def of_cache(
    selection: Tensor,
    hidden: Tensor,
    weights: Mapping[str, Tensor],
    shape: oracle.Shape,
    *,
    chunks: Sequence[int],
    shortest: int,
) -> str:
    """The mistake in storing index keys that gives the newest selections ``[t, Hkv, k]``, or "".

    Args:
        selection: of the newest tokens of one request.
        hidden: of all its tokens.
        weights: of the layer.
        shape: of the layer.
        chunks: tokens that came at a time, all of them.
        shortest: tokens by which another request of the batch is shorter.
    """
    ends = list(accumulate(chunks))
    length_at = [next(end for end in ends if t < end) for t in range(len(hidden))]
    q_idx, k_idx = oracle.index_heads(hidden, weights, shape)
    newest = range(len(hidden) - len(selection), len(hidden))
    if _alike(selection, q_idx, k_idx, shape, _whole, newest, length_at):
        return ""
    for words, found in _losses(shape.block, ends, shortest):
        if _alike(selection, q_idx, k_idx, shape, found, newest, length_at):
            return words
    return ""


def _losses(block: int, ends: Sequence[int], shortest: int) -> Iterator[tuple[str, Found]]:
    yield "index keys are not stored", lambda keys, _: torch.zeros_like(keys)

    def late(keys: Tensor, length: int) -> Tensor:
        return _zeroed(keys, slice(max(length // block - 1, 0) * block, None))

    yield "the newest index keys are missing: they arrive a page late", late
    yield (
        "index keys lag one page behind the keys",
        lambda keys, _: keys.roll(block, 0),
    )

    def wiped(keys: Tensor, length: int) -> Tensor:
        for start in ends:
            if start < length and start % block:
                keys = _zeroed(keys, slice(start - start % block, start))
        return keys

    yield "a chunk that starts inside a block wipes the index keys that were there", wiped

    def stale(keys: Tensor, length: int) -> Tensor:
        changed = keys.clone()
        changed[max(length - shortest, 0) :] = -100
        return changed

    if shortest:
        yield "scores are sized by a stale length, or by that of another request", stale


def _whole(keys: Tensor, _: int) -> Tensor:
    return keys


def _zeroed(keys: Tensor, where: slice) -> Tensor:
    changed = keys.clone()
    changed[where] = 0
    return changed


def _alike(
    selection: Tensor,
    q_idx: Tensor,
    k_idx: Tensor,
    shape: oracle.Shape,
    found: Found,
    rows: range,
    length_at: Sequence[int] | None = None,
) -> bool:
    """Whether nearly all of the newest rows select as the mistake would."""
    same = total = 0
    for t in rows[-_TRIED:]:
        keys = found(k_idx[: t + 1], t + 1 if length_at is None else length_at[t])
        for g, (_, kept) in enumerate(oracle.choose(q_idx[t], keys, shape)):
            got = selection[t - rows.start, g]
            same += sorted(kept) == sorted(got[got >= 0].tolist())
            total += 1
    return same >= _ALIKE * total
