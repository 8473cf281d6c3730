"""From a padded batch ``[B, H, L, D]`` to packed sequences and back.

The retrofit's mask is None (no padding, the last query sits on the last key slot) or bool
``[B, W]``: which slots hold real tokens, cut after the slot of the last query. So its WIDTH says
where the queries stand, also in a static cache whose buffer goes on behind them, and its True
entries say what a sequence consists of. Positions, and with them blocks, count real tokens: left
padding moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the real tokens of a padded batch are.

    Attributes:
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        q_index: batch and slot of every real query, or None where all are real.
        k_index: the same for keys, among the first ``k_slots``.
        k_slots: key slots that are written; a static cache has more behind them.
    """

    cu_q: Tensor
    cu_k: Tensor
    q_index: tuple[Tensor, Tensor] | None
    k_index: tuple[Tensor, Tensor] | None
    k_slots: int


def plan_packing(mask: Tensor | None, batch: int, q_len: int, k_len: int, at: Tensor) -> Packing:
    """Read the retrofit's mask.

    Args:
        mask: None or bool ``[B, W]`` with ``q_len <= W <= k_len``.
        batch: B.
        q_len: query slots.
        k_len: key slots.
        at: any tensor on the device of the batch.

    Raises:
        ValueError: another kind of mask.
    """
    if mask is None:
        steps = torch.arange(batch + 1, dtype=torch.int32, device=at.device)
        return Packing(steps * q_len, steps * k_len, None, None, k_len)
    if mask.ndim != 2 or mask.dtype != torch.bool or len(mask) != batch:
        raise ValueError(
            f"attention_mask: wanted None or the 2-D padding mask bool [{batch}, tokens] that the "
            f"retrofit makes, got {mask.dtype} {list(mask.shape)}"
        )
    if not q_len <= mask.shape[1] <= k_len:
        raise ValueError(
            f"attention_mask: wanted {q_len} to {k_len} columns for {q_len} queries and {k_len} "
            f"key slots, got {mask.shape[1]}"
        )
    real_q = mask[:, mask.shape[1] - q_len :]
    lengths = torch.stack([real_q.sum(1), mask.sum(1)])  # [2, B]
    totals = torch.nn.functional.pad(lengths.cumsum(1), (1, 0)).int()
    q_index, k_index = real_q.nonzero(as_tuple=True), mask.nonzero(as_tuple=True)
    return Packing(
        totals[0],
        totals[1],
        None if len(q_index[0]) == batch * q_len else (q_index[0], q_index[1]),
        None if len(k_index[0]) == mask.numel() else (k_index[0], k_index[1]),
        mask.shape[1],
    )


def pack(x: Tensor, index: tuple[Tensor, Tensor] | None) -> Tensor:
    """Real tokens of ``[B, H, L, D]`` as ``[tokens, H, D]``; a view where none is padding."""
    tokens = x.transpose(1, 2)  # [B, L, H, D]
    return tokens.flatten(0, 1) if index is None else tokens[index]


def unpack(x: Tensor, index: tuple[Tensor, Tensor] | None, batch: int, length: int) -> Tensor:
    """``[tokens, H, D]`` back to ``[B, L, H, D]``, zeros at padding."""
    if index is None:
        return x.reshape(batch, length, *x.shape[1:])
    out = x.new_zeros((batch, length, *x.shape[1:]))
    out[index] = x
    return out
