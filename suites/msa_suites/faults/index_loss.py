"""Faults of the loss that trains the index branch."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.faults.table import Given, fault, wrapping

_LOSS = "msa.reference_index_kl.index_kl"
_GATE = "method:reference"


@fault("training", _GATE)
@wrapping(_LOSS)
def teacher_of_one_head(
    right: Given, q_idx: Tensor, k_idx: Tensor, q: Tensor, k: Tensor, *rest: Tensor, **more: Given
) -> Given:
    """The teacher is the first head of a group, not the mean of all."""
    return right(q_idx, k_idx, q[:, :: q.shape[1] // k.shape[1]], k, *rest, **more)


@fault("training", _GATE)
@wrapping(_LOSS)
def loss_summed_instead_of_averaged(
    right: Given, q_idx: Tensor, *rest: Tensor, **more: Given
) -> Given:
    """Loss and gradients grow with the batch."""
    return tuple(part * (q_idx.shape[0] * q_idx.shape[1]) for part in right(q_idx, *rest, **more))


@fault("training", _GATE)
@wrapping(_LOSS)
def student_and_teacher_swapped_in_the_gradient(
    right: Given, *rest: Tensor, **more: Given
) -> Given:
    """teacher - student: training drives the index branch away."""
    loss, dq_idx, dk_idx = right(*rest, **more)
    return loss, -dq_idx, -dk_idx


@fault("training", _GATE)
@wrapping(_LOSS)
def shared_index_key_learns_from_one_group(
    right: Given, q_idx: Tensor, k_idx: Tensor, *rest: Tensor, **more: Given
) -> Given:
    """The gradient of the one index key head leaves out the groups beyond the first."""
    loss, dq_idx, _ = right(q_idx, k_idx, *rest, **more)
    *others, selection = rest
    first = torch.where(torch.arange(selection.shape[1])[:, None] == 0, selection, -1)
    _, _, dk_idx = right(q_idx, k_idx, *others, first, **more)
    return loss, dq_idx, dk_idx
