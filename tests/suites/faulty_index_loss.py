# ruff: noqa: ARG002  # a fault often is an argument that nobody reads
"""Faults in the index branch's loss."""

import torch
from faulty_method import Method


class TeacherOfTheFirstHead(Method):
    def teach(self, q, k, kept, scale):
        share = q.shape[1] // k.shape[1]
        return super().teach(q[:, ::share], k, kept, scale)


class TeacherOfMeanLogits(Method):
    """One softmax of the heads' mean logits instead of the mean of their softmaxes."""

    def teach(self, q, k, kept, scale):
        q = q.unflatten(1, (k.shape[1], -1)).mean(2)
        return super().teach(q, k, kept, scale)


class TeacherNotRenormalised(Method):
    """Shares of all that a query could see, not of the support alone."""

    def teach(self, q, k, kept, scale):
        position = torch.arange(len(q)) + k.shape[0] - len(q)
        seen = (torch.arange(len(k)) <= position[:, None])[:, None].expand_as(kept)
        return super().teach(q, k, seen, scale).masked_fill(~kept, 0.0)


class ReverseDivergence(Method):
    def diverge(self, teacher, told):
        student = told.exp().masked_fill(told == 0, 0.0)
        return (student * (told - teacher.clamp_min(1e-30).log())).sum()


class SumInsteadOfMean(Method):
    def count(self, count):
        return 1


class CrossEntropy(Method):
    """Without the teacher's own entropy: the gradient is right, the loss is not."""

    def diverge(self, teacher, told):
        return -(teacher * told).sum()


class LossWithoutGradient(Method):
    def index_kl(self, q_idx, k_idx, *rest, **keywords):
        loss, _, _ = super().index_kl(q_idx, k_idx, *rest, **keywords)
        return loss, torch.zeros(q_idx.shape), torch.zeros(k_idx.shape)


class KeysOfTheFirstGroupOnly(Method):
    """The shared index key gets its gradient from one group."""

    def index_kl(self, q_idx, k_idx, q, k, selection, **keywords):
        loss, dq, _ = super().index_kl(q_idx, k_idx, q, k, selection, **keywords)
        only = selection.clone()
        only[:, 1:] = -1
        _, _, dk = super().index_kl(q_idx, k_idx, q, k, only, **keywords)
        return loss, dq, dk


OPERATIONS = [
    TeacherOfTheFirstHead,
    TeacherOfMeanLogits,
    TeacherNotRenormalised,
    ReverseDivergence,
    SumInsteadOfMean,
    CrossEntropy,
    LossWithoutGradient,
    KeysOfTheFirstGroupOnly,
]
