"""A selection over blocks that are numbered on through sequences and groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msa.fast.entries import Entries

#: Logits that are held at once.
_HELD = 1 << 20
#: Rows at most of which a chunk is made: sums over them stay on one thread, and so do their bits.
_ROWS = 1 << 14


@dataclass(frozen=True, slots=True)
class Selected:
    """Blocks that queries selected.

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
