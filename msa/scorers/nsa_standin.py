"""A stand-in for NSA's selection without its training: importance from compressed attention."""

from __future__ import annotations

from torch import Tensor

from msa.scorers.compressed import score_with_windows


def _shared_out(mass: Tensor, share: Tensor) -> Tensor:
    """Mass of the windows, each counted for the part of it that lies in the block."""
    return (mass * share).sum(-1)


def score_nsa_standin(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    seed: int = 0,  # noqa: ARG001 - one signature for all scorers
) -> Tensor:
    """Softmax mass of the windows in the block (NSA, arXiv 2502.11089, equations 8 to 10).

    NSA's compressed keys come from a trained network; here they are means, so only the rule that
    turns their attention into importance is NSA's. With its windows of 32 tokens every 16 and
    blocks of 64, a window within a block counts twice and one across a border once for either:
    the share of the window. ``q`` is every query head, ``[Tq, Hq, D]``; the mass is summed over
    the heads of a group. Shapes and errors: :func:`msa.scorers.compressed.score_with_windows`.
    """
    return score_with_windows(q, k, _shared_out, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale)
