"""The reverse index: which queries chose a block."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.packing import count_blocks


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
    sizes = chosen.sum(1).tolist()
    rows = chosen.view(-1).nonzero()[:, 0].remainder_(chosen.shape[1])
    return [(b, part) for b, part in enumerate(torch.split(rows, sizes)) if len(part)]
