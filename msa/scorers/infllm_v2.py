"""InfLLM-V2: the best of a block's compressed windows, with nothing learned."""

from __future__ import annotations

from torch import Tensor

from msa.scorers.compressed import score_with_windows


def _best(mass: Tensor, share: Tensor) -> Tensor:
    """The largest mass among the windows that touch a block; ``[..., blocks]``."""
    del share
    return mass.amax(-1)


def score_infllm_v2(
    q: Tensor,
    k: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    seed: int = 0,  # noqa: ARG001 - one signature for all scorers
) -> Tensor:
    """Largest softmax mass of a window that touches the block (arXiv 2509.24663, section 3).

    Windows are mean keys, half a block long, one every quarter: the 32 and 16 tokens of the paper
    at its blocks of 64. ``q`` is every query head, ``[Tq, Hq, D]``; the mass is summed over the
    heads of a group. Shapes and errors: :func:`msa.scorers.compressed.score_with_windows`.
    """
    return score_with_windows(q, k, _best, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale)
