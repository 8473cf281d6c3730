"""Kernels in Gluon for SM100 (Blackwell), with a second arm for SM90 (Hopper).

One schedule, two arms: plans, masks, addresses and the rings of keys and pages are the same lines;
the matrix products go to tensor memory by ``tcgen05`` or stay in registers by ``wgmma``, and with
them go their signals. So what a Hopper card runs vouches for the former. :mod:`simulating` runs the
source of both on a CPU.

Four implementations: ``sm100`` and ``sm90``, each on its own GPUs and nowhere else, and
``sm100_simulated`` and ``sm90_simulated`` on a CPU. This module imports without triton; then none
of them has an operation, and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from msa_kernels.gluon_ops.arms import (
    ARMS,
    BLOCKS,
    DIMS,
    DTYPES,
    GROUP_SIZES,
    PACKED_DIMS,
    SM90,
    SM100,
    TOPK_VALUES,
    Arm,
)
from msa_kernels.gluon_ops.arms import simulated as on_a_cpu

__all__ = ["ARMS", "Implementation", "sm90", "sm90_simulated", "sm100", "sm100_simulated"]

_FOUND = find_spec("triton") is not None

if _FOUND:
    from msa_kernels.gluon_ops import launches as _launches
    from msa_kernels.gluon_ops.attention import sparse_attention
    from msa_kernels.gluon_ops.decoding import sparse_decode
    from msa_kernels.gluon_ops.pipeline import attend, attend_paged
    from msa_kernels.gluon_ops.scoring import block_scores, paged_block_scores
    from msa_kernels.triton_ops.combining import combine
    from msa_kernels.triton_ops.selecting import select_blocks


class Implementation:
    """The kernels in one arm.

    Attributes:
        CAPABILITIES: what they can run.
        arm: where they run.
    """

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.__module__, self.__qualname__ = __name__, arm.name
        self.CAPABILITIES: dict[str, object] = {
            "dtypes": list(DTYPES),
            "devices": [arm.device],
            "layouts": ["packed", "paged"],
            "head_dims": list(DIMS),
            "index_dims": list(DIMS),
            "packed_dims": list(PACKED_DIMS),
            "block_sizes": list(BLOCKS),
            "topk_values": list(TOPK_VALUES),
            "group_sizes": list(GROUP_SIZES),
            "nan_scores": True,
            "tie_rule": "lower block first",
            "sink_blocks": True,
            "exact_scores": True,
        }
        if _FOUND:
            self.block_scores: Callable[..., object] = partial(block_scores, arm)
            self.paged_block_scores: Callable[..., object] = partial(paged_block_scores, arm)
            self.sparse_attention: Callable[..., object] = partial(sparse_attention, arm)
            self.sparse_decode: Callable[..., object] = partial(sparse_decode, arm)
            self.attend: Callable[..., object] = partial(attend, arm)
            self.attend_paged: Callable[..., object] = partial(attend_paged, arm)
            if not arm.simulated:
                self.launches: Callable[..., None] = partial(_launches.launches, arm)
                # What lies between scores and attention is no matter of an architecture.
                self.select_blocks: Callable[..., object] = select_blocks
                self.combine: Callable[..., object] = combine

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""
        return (
            self.arm.unavailable() if _FOUND else "wanted triton >= 3.6 (extra `triton`), got none"
        )


sm100, sm90 = Implementation(SM100), Implementation(SM90)
sm100_simulated, sm90_simulated = Implementation(on_a_cpu(SM100)), Implementation(on_a_cpu(SM90))
