"""Packed sequences: where each query and key of a batch of different lengths stands.

``cu_q`` and ``cu_k`` are int32 ``[B + 1]`` running totals. Query i of a sequence sits at position
``k_len - q_len + i`` (bottom-right causal), so the same words serve prefill, chunked prefill and
decode. Block ids count from the start of their own sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """One sequence of a packed batch: rows ``q_start:q_stop`` attend keys ``k_start:k_stop``."""

    q_start: int
    q_stop: int
    k_start: int
    k_stop: int

    @property
    def q_len(self) -> int:
        return self.q_stop - self.q_start

    @property
    def k_len(self) -> int:
        return self.k_stop - self.k_start

    @property
    def first_position(self) -> int:
        """Position of the first query among the keys of its own sequence."""
        return self.k_len - self.q_len

    def positions(self, device: torch.device | None = None) -> Tensor:
        """Positions of the queries, int64 ``[q_len]``."""
        return torch.arange(self.first_position, self.k_len, device=device)


def segments(cu_q: Tensor, cu_k: Tensor) -> tuple[Segment, ...]:
    """The sequences of a packed batch, from running totals ``[B + 1]``."""
    q, k = cu_q.tolist(), cu_k.tolist()
    return tuple(Segment(q[i], q[i + 1], k[i], k[i + 1]) for i in range(len(q) - 1))


def cumulative(lengths: list[int], device: torch.device | None = None) -> Tensor:
    """Running totals int32 ``[B + 1]`` of ``lengths``."""
    return torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(
        0, dtype=torch.int32
    )


def count_blocks(tokens: int, block: int) -> int:
    """``ceil(tokens / block)``."""
    return -(-tokens // block)


def block_columns(cu_k: Tensor, block: int) -> int:
    """NB, the number of score columns of a batch: the blocks of its longest sequence."""
    return count_blocks(int((cu_k[1:] - cu_k[:-1]).max()), block)
