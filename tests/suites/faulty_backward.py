# ruff: noqa: ARG002  # a fault often is an argument that nobody reads
"""Faults in the gradients of attention; the forward is right."""

import torch
from faulty_method import Method


class SharedBlockLastWriterWins(Method):
    """Of queries that share a block, every second one's part of dk and dv is lost."""

    def sparse_attention_backward(self, dout, *rest, **keywords):
        dq, _, _ = super().sparse_attention_backward(dout, *rest, **keywords)
        every_second = dout.clone()
        every_second[::2] = 0
        _, dk, dv = super().sparse_attention_backward(every_second, *rest, **keywords)
        return dq, dk, dv


class OneHeadOfTheGroup(Method):
    def sparse_attention_backward(self, dout, q, k, *rest, **keywords):
        dq, _, _ = super().sparse_attention_backward(dout, q, k, *rest, **keywords)
        first = dout.clone()
        first[:, torch.arange(q.shape[1]) % (q.shape[1] // k.shape[1]) > 0] = 0
        _, dk, dv = super().sparse_attention_backward(first, q, k, *rest, **keywords)
        return dq, dk, dv


class EmptyRowsAreNan(Method):
    def sparse_attention_backward(self, dout, q, k, v, out, lse, selection, **keywords):
        dq, dk, dv = super().sparse_attention_backward(
            dout, q, k, v, out, lse, selection, **keywords
        )
        empty = (selection < 0).all(-1).repeat_interleave(q.shape[1] // k.shape[1], 1)
        return dq.masked_fill(empty[..., None], torch.nan), dk, dv


class LostWhereSlotsAreLeftOver(Method):
    """Keys and values get no gradient from a query with an empty slot."""

    def sparse_attention_backward(self, dout, q, k, v, out, lse, selection, **keywords):
        given = (q, k, v, out, lse, selection)
        dq, _, _ = super().sparse_attention_backward(dout, *given, **keywords)
        full = (selection >= 0).all(-1).repeat_interleave(q.shape[1] // k.shape[1], 1)
        kept = dout * full[..., None].to(dout.dtype)
        _, dk, dv = super().sparse_attention_backward(kept, *given, **keywords)
        return dq, dk, dv


class ScaleOfQueriesMissing(Method):
    def sparse_attention_backward(self, dout, *rest, scale, **keywords):
        dq, dk, dv = super().sparse_attention_backward(dout, *rest, scale=scale, **keywords)
        return dq / scale, dk, dv


class GradientsAreZero(Method):
    def sparse_attention_backward(self, dout, q, k, v, *rest, **keywords):
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)


OPERATIONS = [
    SharedBlockLastWriterWins,
    OneHeadOfTheGroup,
    EmptyRowsAreNan,
    LostWhereSlotsAreLeftOver,
    ScaleOfQueriesMissing,
    GradientsAreZero,
]
