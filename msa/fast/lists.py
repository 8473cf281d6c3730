"""The reverse index: which queries chose a block."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.fast.scoring import cut_rows
from msa.packing import Segment, count_blocks

#: Fewest and most query rows whose lists are held together.
_FEWEST, _MOST = 2048, 8192
#: Queries a block's list should hold for efficient products, at the usual budget.
_LISTED = 16


def list_chunks(segment: Segment, block: int) -> list[tuple[int, int]]:
    """Row ranges ``(start, stop)`` of a segment whose lists are made together."""
    size = min(max(_LISTED * segment.k_len // block, _FEWEST), _MOST)
    return cut_rows(segment, -(-size // block) * block)


def membership(selection: Tensor, first: int, block: int) -> Tensor:
    """Which queries chose each block, of those they can see.

    Args:
        selection: int32 ``[n, k]`` of one group; negative entries are empty.
        first: position of the first query.
        block: tokens per block.

    Returns:
        bool ``[nb, n]``, nb the blocks visible to the last query.
    """
    count = len(selection)
    columns = count_blocks(first + count, block)
    row = torch.arange(count, device=selection.device)
    local = (first + row) // block
    valid = (selection >= 0) & (selection <= local[:, None])
    # Empty entries fall into one spare cell behind the table.
    cell = torch.where(valid, selection * count + row[:, None], columns * count)
    chosen = torch.zeros(columns * count + 1, dtype=torch.bool, device=selection.device)
    chosen[cell.view(-1)] = True
    return chosen[:-1].view(columns, count)


def query_lists(chosen: Tensor) -> list[tuple[int, Tensor]]:
    """``(block, its queries)`` for every block that was chosen, from bool ``[nb, n]``."""
    columns, count = chosen.shape
    cells = chosen.view(-1).nonzero()[:, 0]
    edges = torch.arange(1, columns, device=chosen.device) * count
    ends = torch.searchsorted(cells, edges).tolist()
    parts = torch.tensor_split(cells.remainder_(count), ends)
    return [(b, part) for b, part in enumerate(parts) if len(part)]


def take_runs(chosen: Tensor, size: int, most: int) -> list[tuple[int, int, int]]:
    """Take the pieces where neighbouring queries all chose a block, which need no gather.

    Args:
        chosen: bool ``[nb, n]``; the entries that are taken become False.
        size: queries of a tile, a multiple of 8; only whole tiles are taken, and nothing where
            ``n`` is not made of them.
        most: queries of a run at most, a multiple of ``size``.

    Returns:
        ``(block, first query, last query + 1)``, by block.
    """
    columns, count = chosen.shape
    if count % size:
        return []
    words = chosen.view(torch.int64).view(columns, -1, size // 8)  # eight queries a word
    full = (words == 0x0101010101010101).all(-1)  # [nb, n / size]
    words.masked_fill_(full[..., None], 0)
    runs: list[tuple[int, int, int]] = []
    for b, at in full.nonzero().tolist():
        start, stop = at * size, (at + 1) * size
        if runs and runs[-1][0] == b and runs[-1][2] == start and stop - runs[-1][1] <= most:
            runs[-1] = (b, runs[-1][1], stop)
        else:
            runs.append((b, start, stop))
    return runs
