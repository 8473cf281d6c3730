# ruff: noqa: ARG001 - a fault often is an argument that nobody reads
"""Faults of the index branch: rotation and norm of its heads."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.faults.table import Given, fault, wrapping


@fault("selection", "method:layer", seen="d9d#38", cause="not rotated")
@wrapping("msa.index_branch.rotate", within="msa.index_branch")
def index_heads_not_rotated(right: Given, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """No rotary embedding on the index heads."""
    return x


@fault("selection", "method:layer", seen="sglang#13530", cause="pairs of neighbours")
@wrapping("msa.index_branch.rotate", within="msa.index_branch")
def index_heads_rotated_in_pairs(right: Given, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The rotary embedding turns neighbouring channels instead of halves."""
    half = cos.shape[-1]
    order = torch.arange(2 * half).view(2, half).T.flatten()
    shuffled = torch.cat([x[..., : 2 * half][..., order.argsort()], x[..., 2 * half :]], -1)
    turned = right(shuffled, cos, sin)
    return torch.cat([turned[..., : 2 * half][..., order], turned[..., 2 * half :]], -1)


@fault("selection", "method:layer", cause="another number of channels")
@wrapping("msa.index_branch.rotary_table")
def rotation_of_every_channel(
    right: Given, positions: Tensor, *, rotary_dim: int, theta: float, dtype: Given
) -> Given:
    """Frequencies spread over another number of channels."""
    cos, sin = right(positions, rotary_dim=2 * rotary_dim, theta=theta, dtype=dtype)
    return cos[..., : rotary_dim // 2], sin[..., : rotary_dim // 2]


@fault("selection", "method:layer", seen="vmlx#226", cause="applied twice")
@wrapping("msa.index_branch.GemmaRMSNorm.forward")
def norm_gain_applied_twice(right: Given, self: Given, x: Tensor) -> Given:
    """``1 + w`` of the norm applied twice: zero-initialised weights hide it."""
    return (right(self, x) * (1 + self.weight)).to(x.dtype)


@fault("selection", "method:layer", seen="vmlx#226", cause="w, not 1 + w")
@wrapping("msa.index_branch.GemmaRMSNorm.forward")
def norm_gain_without_one(right: Given, self: Given, x: Tensor) -> Given:
    """``w`` instead of ``1 + w``."""
    return (right(self, x) / (1 + self.weight) * self.weight).to(x.dtype)


@fault("numbers", "method:layer_bfloat16")
@wrapping("msa.index_branch.rotary_table")
def positions_in_bfloat16(
    right: Given, positions: Tensor, *, rotary_dim: int, theta: float, dtype: Given
) -> Given:
    """Positions are cast to the dtype of the layer: beyond 256 bfloat16 skips every other one."""
    return right(positions.to(dtype), rotary_dim=rotary_dim, theta=theta, dtype=dtype)
