"""Sizes and settings that the wrappers of ``inference.msa_v1`` are built for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msa.checks import came

#: Tokens of a page and of a block, and channels of a head.
SIZE = 128
TOPK = 16
GROUPS = (8, 16)
#: Heads of its indexers, which are the groups here.
INDEX_HEADS = (1, 2, 4)


def require_sizes(tensors: dict[str, Tensor], block: int, groups: int) -> None:
    """Refuse what the kernels are not built for, in tensors that fit together; ``q`` is one.

    Raises:
        TypeError: another dtype than bfloat16.
        ValueError: another block or width than 128, other groups.
    """
    if block != SIZE:
        raise ValueError(f"block: wanted {SIZE}, all that it is built for, got {block}")
    for name, x in tensors.items():
        if x.dtype != torch.bfloat16:
            raise TypeError(f"{name}: wanted bfloat16, got {came(x)}")
        if x.shape[-1] != SIZE:
            raise ValueError(f"{name}: wanted a width of {SIZE}, got {came(x)}")
    if groups not in INDEX_HEADS:
        listed = ", ".join(map(str, INDEX_HEADS))
        raise ValueError(f"q_idx: wanted {listed} heads, got {groups}")
    share = tensors["q"].shape[-2] // groups
    if share not in GROUPS:
        listed = ", ".join(map(str, GROUPS))
        raise ValueError(f"q: wanted {listed} heads per group, got {share}")


def require_one_head(name: str, x: Tensor) -> None:
    """Index keys ``[.., H, 128]`` or ``[P, H, 128, 128]`` of one head for all groups."""
    if x.shape[1] != 1:
        raise ValueError(f"{name}: wanted 1 head for all groups, got {came(x)}")


def require_settings(
    topk: int, local_blocks: int, sink_blocks: int, *, scale: float, index_scale: float
) -> None:
    """Refuse settings that its wrappers have no arguments for.

    Raises:
        ValueError: another budget than 16, other forced blocks than the own one, a scale that is
            not above 0.
    """
    fixed = {"topk": TOPK, "local_blocks": 1, "sink_blocks": 0}
    for (name, only), value in zip(fixed.items(), (topk, local_blocks, sink_blocks), strict=True):
        if value != only:
            raise ValueError(f"{name}: wanted {only}, all that it is built for, got {value}")
    for name, factor in {"scale": scale, "index_scale": index_scale}.items():
        if not 0 < factor < math.inf:
            raise ValueError(f"{name}: wanted a finite number above 0, got {factor!r}")
