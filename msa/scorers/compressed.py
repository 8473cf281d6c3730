"""Scorers that see the past through compressed keys: the mean of each short, overlapping window.

NSA and InfLLM-V2 cut windows of 32 tokens every 16 for blocks of 64. Here a window is half a block
long and begins at every quarter, so that any block size has the same shape. Like theirs, a window
counts once it lies wholly in the past: what follows the last such window is left to the local
blocks, which are always kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from msa.scorers.heads import check_heads, grouped_queries
from msa.scorers.tiles import Tile, empty_scores, hide_future_blocks, query_tiles


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of ``length`` tokens, one every ``stride`` tokens."""

    length: int
    stride: int

    @classmethod
    def of_block(cls, block: int) -> Windows:
        """Half a block every quarter; one token at least."""
        return cls(max(1, block // 2), max(1, block // 4))

    def means(self, keys: Tensor) -> Tensor:
        """Mean keys ``[H, D, W]`` of the windows in keys ``[S, H, D]``."""
        if len(keys) < self.length:
            return keys.new_zeros((*keys.shape[1:], 0))
        return keys.unfold(0, self.length, self.stride).mean(-1).permute(1, 2, 0)

    def of_blocks(self, blocks: int, block: int, count: int) -> tuple[Tensor, Tensor]:
        """The windows that share tokens with every block.

        Args:
            blocks: number of blocks.
            block: tokens per block.
            count: number of windows; its value stands where a block has no further window.

        Returns:
            Ids int64 ``[blocks, n]`` and the share of the window that lies in the block, float32.
        """
        begin = torch.arange(blocks)[:, None] * block
        most = (block + self.length - 2) // self.stride + 1
        # The first window that ends behind the block's first token.
        first = torch.div(begin - self.length + self.stride, self.stride, rounding_mode="floor")
        ids = first + torch.arange(most)
        start = ids * self.stride
        shared = (start + self.length).clamp(max=begin + block) - start.clamp(min=begin)
        absent = (shared <= 0) | (ids < 0) | (ids >= count)
        share = (shared / self.length).masked_fill(absent, 0.0)
        return ids.masked_fill(absent, count), share


#: From the mass of every block's windows and the share of each window that lies in the block, both
#: ``[..., blocks, n]``, to the blocks' scores ``[..., blocks]``.
Pooling = Callable[[Tensor, Tensor], Tensor]


def score_with_windows(
    q: Tensor, k: Tensor, pool: Pooling, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
) -> Tensor:
    """Softmax over the compressed keys, summed over the heads of the group, pooled to blocks.

    Args:
        q: every query head, ``[Tq, Hq, D]``.
        k: keys of the main branch, ``[Tk, Hkv, D]``.
        pool: the pooling.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the logits, that of the attention itself.

    Returns:
        float32 ``[Tq, Hkv, NB]``; 0 for a block with visible tokens but no whole window.
    """
    check_heads(q, k, cu_q, cu_k, block)
    windows = Windows.of_block(block)
    groups = k.shape[1]
    scores = empty_scores(q, groups, cu_k, block)
    # A row has one logit a head and window, and two numbers more a group when blocks pool them.
    per_window = 4 * (q.shape[1] + 2 * groups)
    for tile in query_tiles(cu_q, cu_k, block=block, bytes_per_key=per_window / windows.stride):
        mass = _window_mass(q, k, tile, windows, scale)  # [G, rows, W]
        ids, share = windows.of_blocks(tile.blocks, block, mass.shape[-1])
        # The column behind the last window is where absent ones point to.
        found = functional.pad(mass, (0, 1))[..., ids.to(q.device)]  # [G, rows, blocks, n]
        pooled = pool(found, share.to(q.device)).transpose(0, 1).contiguous()
        scores[tile.rows, :, : tile.blocks] = hide_future_blocks(pooled, tile, block)
    return scores


def _window_mass(q: Tensor, k: Tensor, tile: Tile, windows: Windows, scale: float) -> Tensor:
    """Softmax over the windows before each query, summed over the group's heads: ``[G, rows, W]``.

    A query before the end of the first window has nothing to share out: its row is 0.
    """
    groups, rows = k.shape[1], len(tile.positions)
    start = tile.sequence.k_start
    keys = windows.means(k[start : start + tile.keys].float())  # [G, D, W]
    logits = torch.matmul(grouped_queries(q, tile, groups), keys).mul_(scale)
    logits = logits.view(groups, q.shape[1] // groups, rows, keys.shape[-1])
    ends = torch.arange(keys.shape[-1], device=q.device) * windows.stride + windows.length
    future = ends > tile.positions[:, None] + 1  # [rows, W]
    mass = logits.masked_fill_(future, -torch.inf).softmax(-1)
    return mass.masked_fill_(future.all(-1, keepdim=True), 0.0).sum(1)
