"""Faults of the gradients of attention; the forward is right."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.faults.table import Given, fault, wrapping

_BACKWARD = "msa.reference_backward.sparse_attention_backward"
_GATE = "method:reference"


@fault("backward", _GATE, seen="cudnn-frontend#385", cause="share a block")
@wrapping(_BACKWARD)
def queries_that_share_a_block_overwrite_each_other(
    right: Given, dout: Tensor, *tensors: Tensor, **rest: Given
) -> Given:
    """Of two neighbours that chose a block only the second one's part of dK and dV stays."""
    dq, _, _ = right(dout, *tensors, **rest)
    last = dout.clone()
    last[:-1:2] = 0
    _, dk, dv = right(last, *tensors, **rest)
    return dq, dk, dv


@fault("backward", _GATE, seen="cudnn-frontend#676", cause="rows without any block")
@wrapping(_BACKWARD)
def nan_gradient_of_rows_without_a_block(
    right: Given, dout: Tensor, *tensors: Tensor, **rest: Given
) -> Given:
    """The softmax of a row that sees nothing is computed again as NaN."""
    dq, dk, dv = right(dout, *tensors, **rest)
    selection = tensors[-1]
    empty = (selection < 0).all(-1).repeat_interleave(dq.shape[1] // selection.shape[1], 1)
    return dq.masked_fill(empty[..., None], torch.nan), dk, dv


@fault("backward", _GATE, seen="cudnn-frontend#298", cause="empty slots add nothing")
@wrapping(_BACKWARD)
def key_gradients_lost_where_slots_are_left_over(
    right: Given, dout: Tensor, *tensors: Tensor, **rest: Given
) -> Given:
    """A query whose selection is wider than what it sees adds nothing to dK and dV."""
    dq, _, _ = right(dout, *tensors, **rest)
    selection = tensors[-1]
    full = (selection >= 0).all(-1).repeat_interleave(dq.shape[1] // selection.shape[1], 1)
    _, dk, dv = right(dout * full[..., None].to(dout.dtype), *tensors, **rest)
    return dq, dk, dv


@fault("backward", _GATE)
@wrapping(_BACKWARD)
def softmax_held_constant(right: Given, dout: Tensor, *tensors: Tensor, **rest: Given) -> Given:
    """The gradient does not pass through the softmax: dQ and dK are zero."""
    dq, dk, dv = right(dout, *tensors, **rest)
    return torch.zeros_like(dq), torch.zeros_like(dk), dv
