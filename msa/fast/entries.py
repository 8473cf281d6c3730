"""Products with selected blocks that are too small to be worth passes of their own.

An entry is a block that a query of a group selected. Ordered by block and cut into tiles of as many
entries, all products are those of a batch of small matrices. Masks, softmax and losses run over all
entries at once, ordered by query.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Entries of a tile.
_TILE = 32


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a chunk, whose rows are the queries, group by group.

    Ordered by query, numbers of ``R`` heads are ``[rows, R, width * block]``, an entry behind the
    other. Ordered by block they are ``[tiles, t * R, block]``, with ``t`` entries a tile and the
    heads of an entry one behind the other; a tile's entries are of one block, and it is filled up
    with empty ones, whose rows are zero. The last tile has nothing else.

    Attributes:
        source: int64 ``[tiles * t]``, the entry (row times width plus its place in the row) in
            every place of a tile; the number of entries where it is empty.
        place: int64 ``[rows * width]``, where an entry is; of one that selects nothing, the last.
        seen: bool ``[rows, 1, width * block]``, what a row sees.
        owners: int64 ``[tiles]``, the block of a tile, and of the last one a number beyond.
        width: entries of a row.
    """

    source: Tensor
    place: Tensor
    seen: Tensor
    owners: Tensor
    width: int

    @classmethod
    def of(cls, ids: Tensor, bounds: Tensor, count: int, block: int) -> Entries:
        """The entries of rows.

        Args:
            ids: int64 ``[n, Hkv, w]``, numbers of blocks; ``Hkv * count`` where there is none.
            bounds: int64 ``[n, Hkv]``, the slot behind which a row sees nothing.
            count: blocks of a group.
            block: tokens per block.
        """
        ordered, order = ids.flatten().sort(stable=True)
        found, sizes = torch.unique_consecutive(ordered, return_counts=True)
        beyond = ids.shape[1] * count
        found, sizes = found[found < beyond], sizes[: int((found < beyond).sum())]
        tiles = -(-sizes // _TILE)
        owners = torch.cat([found.repeat_interleave(tiles), found.new_tensor([beyond])])
        # What empty places before its block add to the place of an entry.
        added = (tiles.cumsum(0) - tiles) * _TILE - (sizes.cumsum(0) - sizes)
        place = added.repeat_interleave(sizes)
        place += torch.arange(len(place), device=ids.device)
        order = order[: len(place)]
        source = order.new_full((len(owners) * _TILE,), ids.numel())
        source[place] = order
        places = order.new_full((ids.numel(),), len(source) - 1)
        places[order] = place
        slots = ids[..., None] * block + torch.arange(block, device=ids.device)
        seen = (slots <= bounds[..., None, None]).reshape(bounds.numel(), 1, -1)
        return cls(source, places, seen, owners, ids.shape[2])

    def take(self, x: Tensor) -> Tensor:
        """Rows ``[rows, R, D]`` by block, ``[tiles, t * R, D]``."""
        filled = F.pad(x.flatten(1), (0, 0, 0, 1))  # one more row, for empty places
        return filled.index_select(0, self.source // self.width).view(
            len(self.owners), -1, x.shape[2]
        )

    def by_query(self, part: Tensor, heads: int) -> Tensor:
        """What is by block, ``[tiles, t * R, W]``, by query: ``[rows, R, width * W]``."""
        at = self.place
        if heads > 1:
            head = torch.arange(heads, device=at.device)[:, None]
            at = (at.view(-1, 1, self.width) * heads + head).view(-1)
        return part.flatten(0, 1).index_select(0, at).view(len(self.seen), heads, -1)

    def by_block(self, part: Tensor) -> Tensor:
        """What is by query, ``[rows, R, width * W]``, by block: ``[tiles, t * R, W]``."""
        heads = part.shape[1]
        empty = self.source == len(self.place)
        at = self.source.masked_fill(empty, 0)
        if heads > 1:
            row, entry = at // self.width, at % self.width
            head = torch.arange(heads, device=at.device)
            at = ((row[:, None] * heads + head) * self.width + entry[:, None]).view(-1)
        found = part.reshape(len(self.place) * heads, -1).index_select(0, at)
        found.view(len(empty), -1)[empty] = 0
        return found.view(len(self.owners), -1, found.shape[1])

    def masks(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """1 where a row sees and 0 elsewhere; and what, added to a logit, leaves no weight there.

        Both ``[rows, 1, width * block]``. A product or a sum takes a tenth of the time of
        ``masked_fill_``, whose mask would be the same for all heads.
        """
        seen = self.seen.to(dtype)
        return seen, (1.0 - seen) * (torch.finfo(dtype).min / 2)

    def of_tiles(self, x: Tensor) -> Tensor:
        """The tiles' blocks ``[tiles, block, D]``.

        Args:
            x: ``[blocks + 1, block, D]``, of all groups or of one that all share.
        """
        blocks, own = len(x) - 1, self.owners[:-1]
        return x.index_select(0, F.pad(own % max(blocks, 1), (0, 1), value=blocks))

    def weighted(self, weights: Tensor, values: Tensor, heads: int) -> Tensor:
        """Sums of values, ``[rows, R, D]``.

        Args:
            weights: by block, ``[tiles, t * R, block]``.
            values: of the tiles, ``[tiles, block, D]``.
            heads: R.
        """
        sums = self.by_query(torch.bmm(weights, values), heads)
        parts: Tensor = sums.view(len(self.seen), heads, self.width, -1)
        return parts.sum(2)

    def add_outer(self, into: Tensor, weights: Tensor, rows: Tensor) -> None:
        """Add to every block of ``into`` the sums of rows, weighted, in one order.

        Args:
            into: ``[blocks + 1, block, D]`` of all groups.
            weights: by block, ``[tiles, t * R, block]``.
            rows: by block, ``[tiles, t * R, D]``.
        """
        parts = torch.bmm(weights.mT, rows)
        if into.is_cuda:  # where index_add_ is atomic, in any order; this one sorts
            into.index_put_((self.owners,), parts, accumulate=True)
        else:
            into.index_add_(0, self.owners, parts)
