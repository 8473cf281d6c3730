"""Upper bound in the manner of Quest: per channel, the extreme key that suits the query."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.calls import check_index
from msa.scorers.pooled import block_view, score_with_pooled_keys


def _running_extremes(keys: Tensor, block: int) -> Tensor:
    """Channel maxima, then negated minima, of every prefix; ``[blocks, block, H, 2 Di]``."""
    blocks = block_view(keys, block)
    return torch.cat([blocks.cummax(1).values, -blocks.cummin(1).values], dim=-1)


def score_quest(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    seed: int = 0,  # noqa: ARG001 - one signature for all scorers
) -> Tensor:
    """Sum over channels of ``max(q * kmin, q * kmax)``, never below the best token's score.

    A positive channel of the query takes the block's largest key channel, a negative one its
    smallest: ``relu(q) . kmax + relu(-q) . (-kmin)``, which is a dot product of twice the width.
    Shapes: :mod:`msa.scorers`.
    """
    check_index(q, k, cu_q, cu_k, block)
    scaled = q.float() * scale
    signed = torch.cat([scaled.clamp(min=0), (-scaled).clamp(min=0)], dim=-1)
    return score_with_pooled_keys(
        signed, k.float(), _running_extremes, cu_q=cu_q, cu_k=cu_k, block=block
    )
