"""Mean pooling: the control that loses facts while perplexity hardly moves."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.calls import check_index
from msa.scorers.pooled import block_view, score_with_pooled_keys


def _running_mean(keys: Tensor, block: int) -> Tensor:
    """Mean of the keys of a block up to each token, float32 ``[blocks, block, H, Di]``."""
    totals = block_view(keys, block).cumsum(1)
    counts = torch.arange(1, block + 1, device=keys.device)
    return totals / counts[:, None, None]


def score_mean(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    seed: int = 0,  # noqa: ARG001 - one signature for all scorers
) -> Tensor:
    """Mean of the visible token scores. Shapes: :mod:`msa.scorers`.

    The mean of the scores is the score of the mean key, so one key per block is enough.
    """
    check_index(q, k, cu_q, cu_k, block)
    return score_with_pooled_keys(
        q.float() * scale, k.float(), _running_mean, cu_q=cu_q, cu_k=cu_k, block=block
    )
