# ruff: noqa: ARG002  # a fault often is an argument that nobody reads
"""Faults in attending: which tokens and heads meet, and the arithmetic of the softmax."""

import math

import torch
from faulty_method import Method


class PageForBlock(Method):
    def attend(self, *tensors, block, **keywords):
        out, _ = super().attend(*tensors, block=block // 2, **keywords)
        _, selection = super().attend(*tensors, block=block, **keywords)
        return out, selection


class BlockOffByOne(Method):
    def keep_tokens(self, selection, tokens, block):
        shifted = torch.where(selection > 0, selection - 1, selection)
        return super().keep_tokens(shifted, tokens, block)


class OneBlockIsEverything(Method):
    def keep_tokens(self, selection, tokens, block):
        kept = super().keep_tokens(selection, tokens, block)
        return torch.ones_like(kept) if selection.shape[-1] == 1 else kept


class BlocksFromTheChunk(Method):
    """Blocks anchored to the first query instead of to position 0."""

    def keep_tokens(self, selection, tokens, block):
        kept = super().keep_tokens(selection, tokens, block)
        return kept.roll(tokens % block, -1)


class Dense(Method):
    def keep_tokens(self, selection, tokens, block):
        return torch.ones_like(super().keep_tokens(selection, tokens, block))


class FutureOfLocalBlock(Method):
    def visible(self, position, tokens, block):
        token = torch.arange(tokens)
        return super().visible(position, tokens, block) | (
            token // block == (position // block)[:, None]
        )


class SelfHidden(Method):
    def visible(self, position, tokens, block):
        return torch.arange(tokens) < position[:, None].clamp_min(1)


class NextVisible(Method):
    def visible(self, position, tokens, block):
        return torch.arange(tokens) <= position[:, None] + 1


class TopLeft(Method):
    def start(self, s):
        return 0


class AdditiveMask(Method):
    def weigh(self, logits, kept):
        logits = logits + torch.where(kept, 0.0, -8.0)
        lse = logits.logsumexp(-1)
        return torch.exp(logits - lse[..., None]), lse


class HeadsByModulo(Method):
    def group_of(self, heads, groups):
        return torch.arange(heads) % groups


class SwappedSelection(Method):
    def sparse_attention(self, q, k, v, selection, **keywords):
        swapped = selection.reshape(
            selection.shape[1], selection.shape[0], selection.shape[2]
        ).transpose(0, 1)
        return super().sparse_attention(q, k, v, swapped, **keywords)


class BatchOffsetTwice(Method):
    def sparse_attention(self, q, k, v, selection, *, cu_q, cu_k, block, scale):
        moved = torch.where(selection >= 0, selection, -1)
        for b in range(1, len(cu_q) - 1):
            rows = slice(int(cu_q[b]), int(cu_q[b + 1]))
            moved[rows] = torch.where(
                moved[rows] >= 0, moved[rows] + int(cu_k[b]) // block, moved[rows]
            )
        return super().sparse_attention(
            q, k, v, moved, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale
        )


class OneSequence(Method):
    def attend(self, *tensors, cu_q, cu_k, **keywords):
        return super().attend(*tensors, cu_q=cu_q[[0, -1]], cu_k=cu_k[[0, -1]], **keywords)


class ScaleMissing(Method):
    def logits(self, q, k, scale):
        return super().logits(q, k, 1.0)


class ScaleIgnored(Method):
    def logits(self, q, k, scale):
        return super().logits(q, k, q.shape[-1] ** -0.5)


class NoShiftInSoftmax(Method):
    def weigh(self, logits, kept):
        weight = torch.where(kept, logits.exp(), 0.0)
        total = weight.sum(-1)
        return weight / total.clamp_min(1e-38)[..., None], total.log()


class RunningMaximumFromZero(Method):
    def weigh(self, logits, kept):
        logits = logits.masked_fill(~kept, -torch.inf)
        top = logits.amax(-1, keepdim=True).clamp_min(0)
        weight = (logits - top).exp()
        total = weight.sum(-1, keepdim=True)
        return weight / total.clamp_min(1e-38), (top + total.log())[..., 0]


class LowPrecisionSums(Method):
    def sum_values(self, weight, v):
        total = torch.zeros(weight.shape[0], weight.shape[1], v.shape[-1], dtype=torch.bfloat16)
        for start in range(0, v.shape[0], 4):
            part = torch.einsum(
                "ths,shd->thd", weight[..., start : start + 4], v[start : start + 4].float()
            )
            total = total + part.bfloat16()
        return total.float()


class LowPrecisionInputs(Method):
    def logits(self, q, k, scale):
        return super().logits(q.bfloat16(), k.bfloat16(), scale)


class SlightlyTooLarge(Method):
    def finish(self, out, lse, q):
        return super().finish(out * 1.02, lse, q)


# ---- faults that need the operation itself


class EmptyEntryIsFirstBlock(Method):
    def sparse_attention(self, q, k, v, selection, **keywords):
        return super().sparse_attention(q, k, v, selection.clamp_min(0), **keywords)


class EmptyRowIsNan(Method):
    def weigh(self, logits, kept):
        logits = logits.masked_fill(~kept, -torch.inf)
        return logits.softmax(-1), logits.logsumexp(-1)


class NanTimesZero(Method):
    def attend_rows(self, q, keys, values, kept, group, scale):
        weight, lse = self.weigh(self.logits(q, keys[:, group], scale), kept[:, group])
        return self.sum_values(weight, values[:, group]), lse


class LseBase2(Method):
    def finish(self, out, lse, q):
        return super().finish(out, lse / math.log(2), q)


class LseOfFirstGroup(Method):
    def finish(self, out, lse, q):
        return super().finish(out, lse[:, :1].expand_as(lse).contiguous(), q)


class MergeNan(Method):
    def combine(self, outs, lses):
        top = lses.amax(0)
        weight = torch.exp(lses - top)
        total = weight.sum(0)
        return (outs * weight[..., None]).sum(0) / total[..., None], top + total.log()


class MergeUnweighted(Method):
    def combine(self, outs, lses):
        return outs.mean(0), lses.logsumexp(0)


BOTH = [
    PageForBlock,
    BlockOffByOne,
    OneBlockIsEverything,
    BlocksFromTheChunk,
    Dense,
    FutureOfLocalBlock,
    SelfHidden,
    NextVisible,
    TopLeft,
    AdditiveMask,
    HeadsByModulo,
    SwappedSelection,
    BatchOffsetTwice,
    OneSequence,
    ScaleMissing,
    ScaleIgnored,
    NoShiftInSoftmax,
    RunningMaximumFromZero,
    LowPrecisionSums,
    LowPrecisionInputs,
    SlightlyTooLarge,
]
OPERATIONS = [
    EmptyEntryIsFirstBlock,
    EmptyRowIsNan,
    NanTimesZero,
    LseBase2,
    LseOfFirstGroup,
    MergeNan,
    MergeUnweighted,
]
