"""A selection is a set: of a block that stands in it twice the first slot counts."""

from __future__ import annotations

import torch
from torch import Tensor


def repeated(chosen: Tensor) -> Tensor:
    """Which slots hold a block that an earlier slot of their row holds.

    Args:
        chosen: ``[.., k]`` of ints.

    Returns:
        bool ``[.., k]``.
    """
    # A stable sort puts the first of equal ones first among them; nothing of size k * k is made.
    ordered, places = torch.sort(chosen, dim=-1, stable=True)
    again = torch.zeros_like(chosen, dtype=torch.bool)
    again[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
    return torch.zeros_like(again).scatter(-1, places, again)
