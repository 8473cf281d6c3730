# ruff: noqa: ARG002  # a fault often is an argument that nobody reads
"""Faults in scoring the blocks and choosing among them."""

import torch
from faulty_method import Method


class MeanPool(Method):
    def pool(self, token, seen):
        return torch.where(seen, token, 0.0).sum(-1) / seen.sum(-1).clamp_min(1) - (
            (~seen.any(-1)) * 1e9
        )


class SharedByMaximum(Method):
    def mix_groups(self, scores):
        return scores.amax(1, keepdim=True).expand_as(scores).contiguous()

    def select_blocks(self, scores, **keywords):
        return super().select_blocks(self.mix_groups(scores), **keywords)


class SharedFromFirst(SharedByMaximum):
    def mix_groups(self, scores):
        return scores[:, :1].expand_as(scores).contiguous()


class LocalNotForced(Method):
    def forced(self, column, local, local_blocks, sink_blocks):
        return (column < sink_blocks) & (column <= local)


class SinkIgnored(Method):
    def forced(self, column, local, local_blocks, sink_blocks):
        return super().forced(column, local, local_blocks, 0)


class FirstBlocksOnly(Method):
    limit = 4096

    def rank(self, scores):
        scores = super().rank(scores).clone()
        scores[..., self.limit :] = -torch.inf
        return scores


class FirstTokensOnly(FirstBlocksOnly):
    def hide(self, token, position, block):
        token = super().hide(token, position, block)
        token[..., 1024:] = -1e30
        return token.masked_fill(
            (torch.arange(token.shape[-1]) > position[:, None])[:, None], -torch.inf
        )


class Recent(Method):
    def rank(self, scores):
        return torch.arange(scores.shape[-1]).expand_as(scores).float()


class Unranked(Method):
    def rank(self, scores):
        return -torch.arange(scores.shape[-1]).expand_as(scores).float()


class Relu(Method):
    def token_scores(self, q, k, scale):
        return super().token_scores(q, k, scale).relu()


class Absolute(Method):
    def token_scores(self, q, k, scale):
        return super().token_scores(q, k, scale).abs()


class LowPrecisionScores(Method):
    def token_scores(self, q, k, scale):
        return super().token_scores(q, k, scale).bfloat16().float()


class HalfTheIndexDim(Method):
    def token_scores(self, q, k, scale):
        half = max(1, q.shape[-1] // 2)
        return super().token_scores(q[..., :half], k[..., :half], scale)


class OneTooFew(Method):
    def pack(self, rows, topk):
        return torch.where(torch.arange(topk) == topk - 1, -1, rows) if topk > 1 else rows


class NewestKeyUnscored(Method):
    """The index cache lags one token behind."""

    def token_scores(self, q, k, scale):
        token = super().token_scores(q, k, scale)
        token[..., -20:] = 0
        return token


class PaddingScoresZero(Method):
    """A block that the sequence ends in is padded with zeros before the maximum."""

    def token_scores(self, q, k, scale):
        self.tokens = k.shape[0]
        return super().token_scores(q, k, scale)

    def pool(self, token, seen):
        best = super().pool(token, seen)
        return best.clamp_min(0) if token.shape[-1] == 16 and self.tokens > 100 else best


# ---- faults that need the operation itself


class FirstIndexHeadOnly(Method):
    def token_scores(self, q, k, scale):
        return super().token_scores(q, k[:, :1].expand_as(k), scale)


class FutureScored(Method):
    def hide(self, token, position, block):
        seen = torch.arange(token.shape[-1]) // block <= (position // block)[:, None]
        return token.masked_fill(~seen[:, None], -torch.inf)


class IndexScaleMissing(Method):
    def token_scores(self, q, k, scale):
        return super().token_scores(q, k, 1.0)


class HiddenIsLarge(Method):
    def block_scores(self, *tensors, **keywords):
        return super().block_scores(*tensors, **keywords).clamp_min(-1e30)


class HiddenIsUnwritten(Method):
    """Scores of blocks behind a query hold what the memory held."""

    def block_scores(self, *tensors, **keywords):
        scores = super().block_scores(*tensors, **keywords)
        return torch.where(scores == -torch.inf, 0.5, scores)


class NanFirst(Method):
    def rank(self, scores):
        return torch.where(scores.isnan(), torch.inf, scores)


class NanAsId(Method):
    def select_blocks(self, scores, **keywords):
        chosen = super().select_blocks(scores, **keywords)
        broken = scores.isnan().any(-1, keepdim=True)
        return torch.where(broken & (chosen > 0), 2**31 - 1, chosen)


class TiesTwice(Method):
    def select_blocks(self, scores, **keywords):
        chosen = super().select_blocks(scores, **keywords)
        finite = scores.nan_to_num(neginf=0.0)
        flat = finite.amax(-1) == finite.amin(-1)
        return torch.where(flat[..., None] & (chosen > 0), chosen[..., :1], chosen)


class HolesInSelection(Method):
    def pack(self, rows, topk):
        return rows.flip(-1)


class SelectionInt64(Method):
    def pack(self, rows, topk):
        return rows.long()


BOTH = [
    MeanPool,
    SharedByMaximum,
    SharedFromFirst,
    LocalNotForced,
    SinkIgnored,
    FirstBlocksOnly,
    FirstTokensOnly,
    Recent,
    Unranked,
    Relu,
    Absolute,
    LowPrecisionScores,
    HalfTheIndexDim,
    OneTooFew,
    NewestKeyUnscored,
    PaddingScoresZero,
]
OPERATIONS = [
    FirstIndexHeadOnly,
    FutureScored,
    IndexScaleMissing,
    HiddenIsLarge,
    HiddenIsUnwritten,
    NanFirst,
    NanAsId,
    TiesTwice,
    HolesInSelection,
    SelectionInt64,
]
