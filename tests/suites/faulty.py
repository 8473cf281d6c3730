# ruff: noqa: ARG002  # a fault often is an argument that nobody reads
"""Wrong implementations, one fault each, by class. Every one of them must be caught.

``BOTH`` shows in the results of ``attend`` alone; ``OPERATIONS`` needs the operation itself.
"""

import math

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


class LargeGroupPartlyStored(Method):
    def finish(self, out, lse, q):
        out = out.clone()
        out[:, 8:] = 0 if q.shape[1] == 16 else out[:, 8:]
        return super().finish(out, lse, q)


class SwappedOutput(Method):
    def finish(self, out, lse, q):
        out = out.transpose(0, 1).reshape(out.shape)
        return super().finish(out, lse, q)


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


class StridesIgnored(Method):
    """Reads the memory behind a view as if it were dense."""

    def attend(self, *tensors, **keywords):
        return super().attend(*map(_as_dense, tensors), **keywords)

    def sparse_attention(self, q, k, v, selection, **keywords):
        return super().sparse_attention(q, k, v, _as_dense(selection), **keywords)


def _as_dense(x):
    strides = [math.prod(x.shape[i + 1 :]) for i in range(x.ndim)]
    return x.as_strided(x.shape, strides)


class AllZero(Method):
    def finish(self, out, lse, q):
        return torch.zeros_like(q), lse


class LastRowsSkipped(Method):
    def finish(self, out, lse, q):
        out = out.clone()
        out[len(out) // 128 * 128 :] = 0 if len(out) > 128 else out[len(out) // 128 * 128 :]
        return super().finish(out, lse, q)


class ScaleMissing(Method):
    def logits(self, q, k, scale):
        return super().logits(q, k, 1.0)


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


class PaddingScoresZero(Method):
    """A block that the sequence ends in is padded with zeros before the maximum."""

    def token_scores(self, q, k, scale):
        self.tokens = k.shape[0]
        return super().token_scores(q, k, scale)

    def pool(self, token, seen):
        best = super().pool(token, seen)
        return best.clamp_min(0) if token.shape[-1] == 16 and self.tokens > 100 else best


class OutputInFloat32(Method):
    def finish(self, out, lse, q):
        return out.float(), lse


class SelectionInt64(Method):
    def pack(self, rows, topk):
        return rows.long()


class Stale(Method):
    """The output buffer of a shape is written once."""

    def __init__(self):
        self.known = {}

    def finish(self, out, lse, q):
        return self.known.setdefault(q.shape, super().finish(out, lse, q))


class CachedByAddress(Method):
    def __init__(self):
        self.known = {}

    def attend(self, q, *rest, **keywords):
        key = (q.data_ptr(), q.shape, keywords["topk"])
        if key not in self.known:
            # Holds the input, so that its address stays taken.
            self.known[key] = (q, super().attend(q, *rest, **keywords))
        return self.known[key][1]


class OneBuffer(Method):
    def __init__(self):
        self.known = {}

    def finish(self, out, lse, q):
        buffer = self.known.setdefault((q.shape, q.dtype), torch.empty_like(q))
        buffer.copy_(out)
        return buffer, lse


class WritesQueries(Method):
    def sparse_attention(self, q, k, v, selection, *, scale, **keywords):
        result = super().sparse_attention(q, k, v, selection, scale=scale, **keywords)
        q.mul_(scale)
        return result


class Noisy(Method):
    def finish(self, out, lse, q):
        return super().finish(out + 1e-7 * torch.rand_like(out), lse, q)


class Crashing(Method):
    def sparse_attention(self, q, *rest, **keywords):
        if q.shape[-1] == 128:
            raise RuntimeError("no kernel for a head dim of 128")
        return super().sparse_attention(q, *rest, **keywords)


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


class TailUnmasked(Method):
    """The last page is read whole: its unused slots hold garbage."""

    def sparse_decode(self, q, k_pages, v_pages, selection, *, page_table, k_lens, scale):
        block = k_pages.shape[2]
        full = ((k_lens + block - 1) // block * block).to(torch.int32)
        whole = super().sparse_decode(
            q, k_pages, v_pages, selection, page_table=page_table, k_lens=k_lens, scale=scale
        )
        open_ = super().sparse_decode(
            q, k_pages, v_pages, selection, page_table=page_table, k_lens=full, scale=scale
        )
        return open_ if q.shape[1] == 1 else whole


class EmptyEntryIsLastPage(Method):
    def sparse_decode(self, q, k_pages, v_pages, selection, *, page_table, k_lens, scale):
        out, lse = super().sparse_decode(
            q, k_pages, v_pages, selection, page_table=page_table, k_lens=k_lens, scale=scale
        )
        # What the looked-up page of an empty entry holds reaches the sum.
        touched = v_pages[page_table[:, -1].long()].sum((2, 3))  # [B, Hkv]
        empty = (selection < 0).any(-1)  # [B, Q, Hkv]
        added = torch.where(empty, touched[:, None].float(), 0.0)
        share = q.shape[2] // k_pages.shape[1]
        return (out + added.repeat_interleave(share, -1)[..., None]).to(q.dtype), lse


class PagesUnshuffled(Method):
    def gather_pages(self, pages, table, length, block):
        return super().gather_pages(pages, torch.sort(table).values, length, block)


class PagesTokenFirst(Method):
    """[page, head, token, D] read as [page, token, head, D]."""

    def gather_pages(self, pages, table, length, block):
        swapped = pages.reshape(pages.shape[0], pages.shape[2], pages.shape[1], pages.shape[3])
        return super().gather_pages(swapped.transpose(1, 2), table, length, block)


BOTH = [
    MeanPool,
    SharedByMaximum,
    SharedFromFirst,
    LocalNotForced,
    SinkIgnored,
    FirstBlocksOnly,
    FirstTokensOnly,
    PageForBlock,
    BlockOffByOne,
    OneBlockIsEverything,
    BlocksFromTheChunk,
    Dense,
    Recent,
    Unranked,
    Relu,
    Absolute,
    LowPrecisionScores,
    HalfTheIndexDim,
    OneTooFew,
    NewestKeyUnscored,
    FutureOfLocalBlock,
    SelfHidden,
    NextVisible,
    TopLeft,
    AdditiveMask,
    HeadsByModulo,
    LargeGroupPartlyStored,
    SwappedOutput,
    SwappedSelection,
    BatchOffsetTwice,
    OneSequence,
    StridesIgnored,
    AllZero,
    LastRowsSkipped,
    ScaleMissing,
    ScaleIgnored,
    NoShiftInSoftmax,
    RunningMaximumFromZero,
    PaddingScoresZero,
    LowPrecisionSums,
    LowPrecisionInputs,
    SlightlyTooLarge,
    OutputInFloat32,
    Stale,
    CachedByAddress,
    OneBuffer,
    WritesQueries,
    Noisy,
    Crashing,
]
OPERATIONS = [
    FirstIndexHeadOnly,
    FutureScored,
    IndexScaleMissing,
    HiddenIsLarge,
    NanFirst,
    NanAsId,
    TiesTwice,
    HolesInSelection,
    SelectionInt64,
    EmptyEntryIsFirstBlock,
    EmptyRowIsNan,
    NanTimesZero,
    LseBase2,
    LseOfFirstGroup,
    MergeNan,
    MergeUnweighted,
    TailUnmasked,
    EmptyEntryIsLastPage,
    PagesUnshuffled,
    PagesTokenFirst,
]
