"""Merging partial attentions."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls


def combine(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Merge ``n`` partial attentions over disjoint keys.

    Args:
        outs: float32 ``[n, Tq, Hq, D]``, each normalised by itself.
        lses: float32 ``[n, Tq, Hq]``; -inf marks an empty part, whose output is not read.

    Returns:
        out float32 ``[Tq, Hq, D]`` and LSE float32 ``[Tq, Hq]``.
    """
    calls.check_partials(outs, lses)
    total = torch.logsumexp(lses, 0)  # [Tq, Hq]
    weight = torch.exp(lses - total.nan_to_num(neginf=0.0))
    out = torch.zeros_like(outs[0])
    for part, w in zip(outs, weight, strict=True):  # one part at a time: no copy of outs
        # An empty part may hold NaN, and NaN times zero is NaN.
        out += torch.where(w[..., None] > 0, part, 0.0) * w[..., None]
    return out, total
