# ruff: noqa: ARG002  # the hooks take what other versions need
"""Right implementations that differ in every freedom the contract leaves: none may fail."""

import torch
from faulty_method import Method


class LowPrecisionEager(Method):
    """Products and probabilities rounded to the inputs' dtype, as unfused code does."""

    def logits(self, q, k, scale):
        return (torch.einsum("thd,shd->ths", q, k) * scale).float()

    def weigh(self, logits, kept):
        logits = logits.masked_fill(~kept, -torch.inf)
        return logits.softmax(-1).nan_to_num(), logits.logsumexp(-1)

    def sum_values(self, weight, v):
        return torch.einsum("ths,shd->thd", weight.to(v.dtype), v).float()


class Online(Method):
    """Running softmax over tiles, in base 2, normalised at the end."""

    def attend_rows(self, q, keys, values, kept, group, scale):
        read = kept.any(0).T[..., None]
        keys, values = keys.masked_fill(~read, 0.0), values.masked_fill(~read, 0.0)
        top = torch.full(q.shape[:2], -torch.inf)
        total, out = torch.zeros(q.shape[:2]), torch.zeros(q.shape)
        for a in range(0, len(keys), 64):
            s = self.logits(q, keys[a : a + 64][:, group], scale * 1.4426950408889634)
            s = s.masked_fill(~kept[:, group, a : a + 64], -torch.inf)
            newest = torch.maximum(top, s.amax(-1))
            base = newest.nan_to_num(neginf=0.0)
            p, factor = torch.exp2(s - base[..., None]), torch.exp2(top - base)
            total = total * factor + p.sum(-1)
            part = self.sum_values(p.to(values.dtype).float(), values[a : a + 64][:, group])
            out, top = out * factor[..., None] + part, newest
        some = total > 0
        out = torch.where(some[..., None], out / total.clamp_min(1e-38)[..., None], 0.0)
        lse = top * 0.6931471805599453 + total.log()
        return out, torch.where(some, lse, -torch.inf)


class LocalFirst(Method):
    """Ids in another order, and no LSE."""

    def pack(self, rows, topk):
        used = (rows >= 0).sum(-1, keepdim=True)
        place = torch.arange(topk)
        return rows.gather(-1, torch.where(place < used, used - 1 - place, place))

    def finish(self, out, lse, q):
        return out.to(q.dtype), None


class HigherBlockFirst(Method):
    """Another tie rule."""

    def select_blocks(self, scores, **keywords):
        last = scores.shape[-1] - 1
        scores = torch.where(scores.isnan(), -torch.inf, scores)
        order = last - scores.flip(-1).argsort(dim=-1, descending=True, stable=True)
        return super().select_blocks(-order.argsort(-1).float(), **keywords)


class DeltaOfTheGivenOutput(Method):
    """Gradients with the sum of dO times O of the output that is given, which is rounded."""

    def sparse_attention_backward(self, dout, q, k, v, out, lse, selection, **keywords):
        again = super().sparse_attention_backward
        dq, dk, dv = again(dout, q, k, v, out, lse, selection, **keywords)
        wide = [x.float() for x in (q, k, v)]
        exact, _ = Method.sparse_attention(Method(), *wide, selection, **keywords)
        towards, _ = Method.sparse_attention(
            Method(), wide[0], wide[1], wide[1], selection, **keywords
        )
        off = (dout.float() * (exact - out.float())).sum(-1, keepdim=True) * keywords["scale"]
        _, _, keys = again(off * wide[0], *wide, out, lse, selection, **keywords)
        return (dq + off * towards).to(q.dtype), (dk + keys).to(k.dtype), dv


RIGHT = [Method, DeltaOfTheGivenOutput, LowPrecisionEager, Online, LocalFirst, HigherBlockFirst]
