"""What no kernel takes of the arguments of attention, found before anything is launched."""

from __future__ import annotations

from torch import Tensor

from msa import calls, checks
from msa_kernels.gluon_ops.arms import (
    BLOCKS,
    DIMS,
    GROUP_SIZES,
    TOPK_VALUES,
    Arm,
    require_cached,
    require_size,
)

#: Factors of E4M3 queries, keys and values; None for 1. Of NVFP4 keys and values their scales.
Factors = tuple[Tensor | None, Tensor | None, Tensor | None]


def check_attending(
    arm: Arm,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    factors: Factors,
    *,
    scale: float,
    block: int,
    topk: int,
) -> None:
    """Queries ``[.., Hq, D]``; keys and values, packed or in pages, with their heads on axis 1.

    Raises:
        ValueError: a size or a value that no kernel takes; the message names it.
        TypeError: keys in a dtype that does not go with the queries'.
    """
    calls.check_factors(("q", q, factors[0]), axis=-2, read=arm.simulated)
    calls.check_factors(("k", k, factors[1]), ("v", v, factors[2]), read=arm.simulated)
    checks.require_scale("scale", scale)
    require_size("q", "a head dim", q.shape[-1], DIMS)
    require_size("block", "a size", block, BLOCKS)
    require_cached("k", k, "q", q)
    share = q.shape[-2] // k.shape[1]
    for name, what, got, known in (
        ("topk", "a number of slots", topk, TOPK_VALUES),
        ("q", "a number of heads a group", share, GROUP_SIZES),
    ):
        if got not in known:
            raise ValueError(f"{name}: wanted {what} from {known[0]} to {known[-1]}, got {got}")
