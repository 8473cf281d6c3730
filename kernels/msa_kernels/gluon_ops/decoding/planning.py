"""Which pages each query of a paged batch reads: made on the device, so that nothing waits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msa_kernels.gluon_ops.choosing import repeated


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a selection that count, those of a query and group side by side.

    Attributes:
        counts: int32 ``[B * Q * Hkv]``.
        places: int32 ``[B * Q * Hkv, k, 3]``: the first row of the page among all rows of all heads
            of all pages, how many of its tokens the query sees, and which slot it is.
    """

    counts: Tensor
    places: Tensor


def plan_slots(selection: Tensor, *, page_table: Tensor, k_lens: Tensor, block: int) -> Slots:
    """What is empty, not visible or there twice does not count.

    Args:
        selection: int32 ``[B, Q, Hkv, k]``.
        page_table: int32 ``[B, W]``.
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        block: tokens per block, and of a page.
    """
    requests, queries, groups, _ = selection.shape
    device = selection.device
    back = torch.arange(queries - 1, -1, -1, device=device)
    position = (k_lens.long()[:, None] - 1 - back)[:, :, None, None]  # [B, Q, 1, 1]
    chosen = selection.long()
    taken = (chosen >= 0) & (chosen <= position // block) & ~repeated(chosen)
    slot = torch.sort(~taken, dim=-1, stable=True).indices  # those that count come first
    chosen = torch.where(taken, chosen, 0).gather(-1, slot)
    request = torch.arange(requests, device=device)[:, None, None, None]
    page = page_table.long()[request, chosen]
    group = torch.arange(groups, device=device)[:, None]
    row = (page * groups + group) * block
    seen = (position - chosen * block + 1).clamp(max=block)
    return Slots(
        taken.sum(-1, dtype=torch.int32).flatten(),
        torch.stack([row, seen, slot], -1).to(torch.int32).flatten(0, 2),
    )
