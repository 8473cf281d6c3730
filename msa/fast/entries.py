"""Products with selected blocks that are too small to be worth passes of their own.

An entry is a block that a query of a group selected. Ordered by block and cut into tiles of as many
entries, all products are those of a batch of small matrices. Masks, softmax and losses run over all
entries at once, ordered by query. Sequences and groups make no difference: the blocks of all of
them are numbered on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

#: Logits that are held at once.
_HELD = 1 << 20
#: Entries of a tile.
_TILE = 32
#: Rows at most of which a chunk is made: sums over them stay on one thread, and so do their bits.
_ROWS = 1 << 14


@dataclass(frozen=True, slots=True)
class Selected:
    """A selection over blocks that are numbered on through sequences and groups.

    The blocks of a group lie behind those of the group before, ``count`` of each; a sequence starts
    a block of its own, and its last block may have slots without a token.

    Attributes:
        selection: int32 ``[n, Hkv, k]``, ids as they are given.
        first: int64 ``[n]``, the first block of a query's sequence.
        positions: int64 ``[n]``, the slot of a query's own token.
        slots: int64 ``[Tk]``, the slot of every token.
        count: blocks of a group.
        block: tokens per block.
    """

    selection: Tensor
    first: Tensor
    positions: Tensor
    slots: Tensor
    count: int
    block: int

    @classmethod
    def of(cls, selection: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int) -> Selected:
        """The selection int32 ``[Tq, Hkv, k]`` of packed sequences."""
        device = selection.device
        q_lens, k_lens = (x.to(device).long().diff() for x in (cu_q, cu_k))
        blocks = -(-k_lens // block)
        starts = blocks.cumsum(0) - blocks
        offset = starts * block
        # Of a token: what is added to its place among all tokens.
        query = offset + (k_lens - q_lens) - cu_q[:-1].to(device)
        token = offset - cu_k[:-1].to(device)
        return cls(
            selection,
            starts.repeat_interleave(q_lens),
            query.repeat_interleave(q_lens) + torch.arange(len(selection), device=device),
            token.repeat_interleave(k_lens) + torch.arange(int(cu_k[-1]), device=device),
            int(blocks.sum()),
            block,
        )

    def take(self, rows: Tensor) -> Selected:
        """The same of the queries ``rows`` alone."""
        return replace(
            self,
            selection=self.selection[rows],
            first=self.first[rows],
            positions=self.positions[rows],
        )

    def chunks(self, heads: int) -> Iterator[tuple[slice, Entries]]:
        """Rows with their entries, chunk by chunk, where a query makes ``heads`` rows a group."""
        groups, topk = self.selection.shape[1:]
        size = _HELD // (groups * heads * topk * self.block)
        size = min(max(size, 1), max(_ROWS // (groups * heads), 1))
        for start in range(0, len(self.selection), size):
            rows = slice(start, start + size)
            yield rows, Entries.of(self._ids(rows), self._bounds(rows), self.count, self.block)

    def lay_out(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Blocks ``[H * count + 1, block, D]`` of ``x`` ``[Tk, H, D]``; 0 where nobody reads.

        The last of them has no tokens.
        """
        heads, dim = x.shape[1:]
        laid = x.new_zeros((heads * self.count + 1, self.block, dim), dtype=dtype)
        slots = laid[:-1].view(heads, self.count * self.block, dim)
        slots.index_copy_(1, self.slots, x.transpose(0, 1).to(dtype))
        if not bool(slots.sum().isfinite()):  # a slot that nobody reads may hold NaN
            slots.masked_fill_(~self._read(heads)[..., None], 0.0)
        return laid

    def tokens(self, laid: Tensor) -> Tensor:
        """Tokens ``[Tk, Hkv, D]`` of all groups' blocks, ``[Hkv * count + 1, block, D]``."""
        groups = self.selection.shape[1]
        slots = laid[:-1].view(groups, self.count * self.block, laid.shape[2])
        return slots.index_select(1, self.slots).transpose(0, 1)

    def _ids(self, rows: slice) -> Tensor:
        """Ascending numbers int64 ``[n, Hkv, w]`` of what rows see, each once, then ones beyond."""
        given, first = self.selection[rows], self.first[rows, None, None]
        local = self.positions[rows, None, None] // self.block - first
        groups = given.shape[1]
        beyond = groups * self.count
        before = torch.arange(groups, device=given.device)[:, None] * self.count
        seen = (given >= 0) & (given <= local)
        ids = torch.where(seen, given + first + before, beyond).sort(-1).values
        twice = ids[..., 1:] == ids[..., :-1]
        twice &= ids[..., 1:] < beyond
        if bool(twice.any()):
            ids[..., 1:].masked_fill_(twice, beyond)
            ids = ids.sort(-1).values
        return ids[..., : max(int((ids < beyond).sum(-1).max()), 1)]

    def _bounds(self, rows: slice) -> Tensor:
        """The slot int64 ``[n, Hkv]`` behind which a row sees nothing."""
        groups = torch.arange(self.selection.shape[1], device=self.slots.device)
        return self.positions[rows, None] + groups * (self.count * self.block)

    def _read(self, heads: int) -> Tensor:
        """Slots that somebody reads, bool ``[heads, count * block]``; one head is everybody's."""
        groups = self.selection.shape[1]
        last = self.slots.new_full((groups * self.count + 1,), -1)
        for start in range(0, len(self.selection), _ROWS):
            ids = self._ids(rows := slice(start, start + _ROWS))
            bounds = self._bounds(rows)[..., None].expand_as(ids)
            last.scatter_reduce_(0, ids.flatten(), bounds.flatten(), "amax")
        slots = torch.arange(groups * self.count * self.block, device=last.device)
        read = (slots.view(-1, self.block) <= last[:-1, None]).view(groups, -1)
        return read if heads == groups else read.any(0, keepdim=True)


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
        count: blocks of a group.
    """

    source: Tensor
    place: Tensor
    seen: Tensor
    owners: Tensor
    width: int
    count: int

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
        seen = (slots <= bounds[..., None, None]).view(bounds.numel(), 1, -1)
        return cls(source, places, seen, owners, ids.shape[2], count)

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

    def products(self, rows: Tensor, keys: Tensor) -> Tensor:
        """Products with the keys of the entries' blocks.

        Args:
            rows: by block, ``[tiles, t * R, D]``.
            keys: ``[blocks + 1, block, D]``, of all groups or of one that all share.

        Returns:
            By block ``[tiles, t * R, block]``; 0 in empty places.
        """
        return torch.bmm(rows, self._of_tiles(keys).mT)

    def weighted(self, weights: Tensor, values: Tensor, heads: int) -> Tensor:
        """Sums of values, ``[rows, R, D]``.

        Args:
            weights: by block, ``[tiles, t * R, block]``.
            values: ``[blocks + 1, block, D]``, of all groups or of one that all share.
            heads: R.
        """
        sums = self.by_query(torch.bmm(weights, self._of_tiles(values)), heads)
        parts: Tensor = sums.view(len(self.seen), heads, self.width, -1)
        return parts.sum(2)

    def add_outer(self, into: Tensor, weights: Tensor, rows: Tensor) -> None:
        """Add to every block of ``into`` the sums of rows, weighted.

        Args:
            into: ``[blocks + 1, block, D]`` of all groups.
            weights: by block, ``[tiles, t * R, block]``.
            rows: by block, ``[tiles, t * R, D]``.
        """
        into.index_add_(0, self.owners, torch.bmm(weights.mT, rows))

    def _of_tiles(self, x: Tensor) -> Tensor:
        """The blocks ``[tiles, block, D]`` of the tiles, of all groups or of one."""
        blocks, own = len(x) - 1, self.owners[:-1]
        return x.index_select(0, F.pad(own % max(blocks, 1), (0, 1), value=blocks))
