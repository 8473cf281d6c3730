"""The products of a pass over key blocks: which queries meet which keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from msa.fast.lists import membership, query_lists
from msa.packing import count_blocks

#: Logits of a product at most, so that two such tiles stay in the L2 cache.
_TILE = 1 << 17
#: Tokens of a product where every query chose all that it sees, and blocks make no difference.
_WIDE = 256
#: Logarithms of weights below this change no sum, and exp of -inf and products of denormal numbers
#: are many times slower than those of others.
LOWEST = -60.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some queries of a chunk, and keys of a block that they chose.

    Each of the queries sees the first key, and the last query sees all of them.

    Attributes:
        rows: of the chunk, ascending; a slice where they are neighbours.
        tokens: of the sequence.
        hidden: bool ``[c, 1, tokens]``, what the first ``c`` queries do not see; the rest see all.
    """

    rows: slice | Tensor
    tokens: slice
    hidden: Tensor

    def take(self, x: Tensor) -> Tensor:
        """Its queries' rows of ``x``."""
        if isinstance(self.rows, slice):
            return x[self.rows]
        return x.index_select(0, self.rows)

    def add(self, x: Tensor, part: Tensor) -> None:
        """Add ``part`` to its queries' rows of ``x``."""
        if isinstance(self.rows, slice):
            x[self.rows] += part
        else:
            x.index_add_(0, self.rows, part)

    def hide(self, x: Tensor, value: float = 0.0) -> Tensor:
        """``x`` ``[m, R, tokens]`` with ``value`` where a query does not see a token; in place."""
        if len(self.hidden):
            x[: len(self.hidden)].masked_fill_(self.hidden, value)
        return x


def cut_pieces(selection: Tensor, first: int, block: int, heads: int) -> list[Piece]:
    """The visible part of a selection, as products.

    Args:
        selection: int32 ``[n, k]`` of consecutive queries; negative entries are empty.
        first: position of the first query.
        block: tokens per block.
        heads: rows of a product that a query makes, R.

    Returns:
        Pieces that hold every visible token of every selected block once, and none else.
    """
    count = len(selection)
    if not count:
        return []
    chosen = membership(selection, first, block)
    row = torch.arange(count, device=selection.device)
    everything = selection.shape[1] >= len(chosen) and torch.equal(
        chosen.sum(0), (first + row) // block + 1
    )
    if everything:
        found = _all_rows(count, first, max(_TILE // _WIDE // heads, 1))
        return [_piece(rows, first + row[rows], start, _WIDE) for start, rows in found]
    most = max(_TILE // block // heads, 1)
    return [
        _piece(rows, first + rows, b * block, block)
        for b, listed in query_lists(chosen)
        for rows in listed.split(most)
    ]


def _all_rows(count: int, first: int, most: int) -> Iterator[tuple[int, slice]]:
    """First token of every stretch of keys, with rows that see it."""
    for start in range(0, count_blocks(first + count, _WIDE) * _WIDE, _WIDE):
        for row in range(max(start - first, 0), count, most):
            yield start, slice(row, min(row + most, count))


def _piece(rows: slice | Tensor, positions: Tensor, start: int, size: int) -> Piece:
    """Queries at ``positions`` with the keys of ``start`` to ``start + size`` that they see."""
    # A slot behind the last of the queries may hold NaN, and NaN times zero is NaN.
    stop = min(start + size, int(positions[-1]) + 1)
    partly = positions[: int(torch.searchsorted(positions, stop - 1))]
    hidden = torch.arange(start, stop, device=positions.device) > partly[:, None]
    return Piece(rows, slice(start, stop), hidden[:, None])


def exponentiate(logs: Tensor) -> Tensor:
    """Weights of their logarithms, which are 0 at most wherever a query sees; in place."""
    return logs.clamp_(LOWEST, 0.0).exp_()
