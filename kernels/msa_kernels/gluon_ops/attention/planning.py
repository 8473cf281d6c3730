"""Which queries chose a block, and how programs share them: made on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msa_kernels.gluon_ops.choosing import repeated


@dataclass(frozen=True, slots=True)
class Units:
    """The slots of some rows of a selection, list by list, and runs of them.

    Attributes:
        order: int64 ``[rows * groups * k]``, places of the slots in the flat selection of the rows;
            a list is a block of a group.
        plan: int32 ``[units, 6]``: where in ``order`` the unit begins and ends, the packed row of
            its block's first token, its group, what turns a row (counted from the first of these)
            into a token of the block, and how many tokens of it the unit's queries see.
    """

    order: Tensor
    plan: Tensor


def plan_units(
    selection: Tensor,
    low: int,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    tokens: int,
    queries: int,
) -> Units:
    """Units of ``queries`` slots at most, each of one list.

    Args:
        selection: int32 ``[rows, Hkv, k]`` of rows ``low`` on; what is empty, not visible or there
            twice is in no unit.
        low: the first row.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        tokens: Tk.
        queries: slots of a unit, at most.
    """
    rows, groups, topk = selection.shape
    device = selection.device
    if not rows:
        return Units(selection.new_empty(0).long(), selection.new_empty((0, 6)))
    sequences = len(cu_q) - 1
    starts, ends = cu_k[:-1].long(), cu_k[1:].long()
    shift = ends - starts - cu_q[1:].long()  # of a packed row to its position
    row = torch.arange(low, low + rows, device=device)
    sequence = torch.searchsorted(cu_q.long(), row, right=True) - 1
    newest = (row + shift[sequence]) // block  # [rows]
    chosen = selection.long()
    taken = (chosen >= 0) & (chosen <= newest[:, None, None]) & ~repeated(chosen)
    # Sequence s has the blocks from first[s] on, which leaves each as many as it needs.
    lists = tokens // block + sequences
    first = starts // block + torch.arange(sequences, device=device)
    group = torch.arange(groups, device=device)[None, :, None]
    name = group * lists + first[sequence][:, None, None] + chosen
    name = torch.where(taken, name, groups * lists).flatten()
    name, order = torch.sort(name, stable=True)
    edges = torch.searchsorted(name, torch.arange(groups * lists + 1, device=device))

    length = edges[1:] - edges[:-1]
    needed = (length + queries - 1) // queries
    through = needed.cumsum(0)
    count = rows * groups * topk // queries + groups * lists
    unit = torch.arange(count, device=device)
    of = torch.searchsorted(through, unit, right=True).clamp_max(groups * lists - 1)
    begin = edges[of] + (unit - through[of] + needed[of]) * queries
    stop = edges[of + 1]
    begin = begin.minimum(stop)  # units that are not needed begin at their end
    at = of % lists
    owner = torch.searchsorted(first, at, right=True) - 1
    number = at - first[owner]
    start = starts[owner] + number * block
    offset = shift[owner] + low - number * block
    # The newest query of a unit stands last in it. What even that one does not see is read by
    # nobody, and may be NaN.
    last = order[(begin + queries).minimum(stop).sub(1).clamp_min(0)] // (groups * topk)
    plan = torch.stack(
        [
            begin,
            (begin + queries).minimum(stop),
            start,
            of // lists,
            offset,
            (last + offset + 1).clamp(0, block),
        ],
        1,
    )
    return Units(order, plan.to(torch.int32))
