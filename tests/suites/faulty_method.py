# ruff: noqa: ARG002  # the hooks take what their faulty versions need
"""A small right implementation in float32, cut into hooks so that each fault changes one."""

import torch

from msa.packing import cumulative, segments


class Method:
    """All operations, written for the faults: every step that goes wrong somewhere is a method."""

    # ---- hooks: scoring and selecting
    def start(self, s):
        return s.first_position

    def token_scores(self, q, k, scale):
        return torch.einsum("tgd,sgd->tgs", q.float(), k.float()) * scale

    def hide(self, token, position, block):
        seen = torch.arange(token.shape[-1]) <= position[:, None]
        return token.masked_fill(~seen[:, None], -torch.inf)

    def pool(self, token, seen):
        return token.amax(-1)

    def mix_groups(self, scores):
        return scores

    def rank(self, scores):
        return torch.where(scores.isnan(), -torch.inf, scores)

    def forced(self, column, local, local_blocks, sink_blocks):
        return ((column < sink_blocks) | (column > local - local_blocks)) & (column <= local)

    def pack(self, rows, topk):
        return rows

    # ---- hooks: attending
    def keep_tokens(self, selection, tokens, block):
        columns = -(-tokens // block)
        kept = torch.zeros(*selection.shape[:2], columns + 1, dtype=torch.bool)
        kept.scatter_(-1, selection.long().clamp(-1, columns - 1) + 1, value=True)
        return kept[..., 1:].repeat_interleave(block, -1)[..., :tokens]

    def visible(self, position, tokens, block):
        return torch.arange(tokens) <= position[:, None]

    def group_of(self, heads, groups):
        return torch.arange(heads) // (heads // groups)

    def logits(self, q, k, scale):
        return torch.einsum("thd,shd->ths", q.float(), k.float()) * scale

    def weigh(self, logits, kept):
        logits = logits.masked_fill(~kept, -torch.inf)
        lse = logits.logsumexp(-1)
        return torch.exp(logits - lse.nan_to_num(neginf=0.0)[..., None]), lse

    def sum_values(self, weight, v):
        return torch.einsum("ths,shd->thd", weight, v.float())

    def finish(self, out, lse, q):
        return out.to(q.dtype), lse

    # ---- operations
    def block_scores(self, q_idx, k_idx, *, cu_q, cu_k, block, scale):
        columns = -(-int((cu_k[1:] - cu_k[:-1]).max()) // block)
        out = torch.full((len(q_idx), q_idx.shape[1], columns), -torch.inf)
        for s in segments(cu_q, cu_k):
            keys = k_idx[s.k_start : s.k_stop].expand(-1, q_idx.shape[1], -1)
            position = torch.arange(s.q_len) + self.start(s)
            token = self.token_scores(q_idx[s.q_start : s.q_stop], keys, scale)
            token = self.hide(token, position, block)
            for b in range(-(-s.k_len // block)):
                part = token[..., b * block : (b + 1) * block]
                out[s.q_start : s.q_stop, :, b] = self.pool(part, part > -torch.inf)
        return self.mix_groups(out)

    def select_blocks(self, scores, *, cu_q, cu_k, block, topk, local_blocks=1, sink_blocks=0):
        out = torch.full((*scores.shape[:2], topk), -1, dtype=torch.int32)
        column = torch.arange(scores.shape[-1])
        for s in segments(cu_q, cu_k):
            local = ((torch.arange(s.q_len) + self.start(s)) // block)[:, None]
            ranked = self.rank(scores[s.q_start : s.q_stop])
            forced = self.forced(column, local, local_blocks, sink_blocks)
            place = ranked.argsort(dim=-1, descending=True, stable=True).argsort(-1).double()
            place = place.masked_fill(forced[:, None], -1.0)
            place = place.masked_fill((column > local)[:, None], torch.inf)
            width = min(topk, scores.shape[-1])
            best = place.topk(width, largest=False)
            ids = torch.where(best.values.isinf(), 2**30, best.indices).sort(-1).values
            ids = torch.where(ids == 2**30, -1, ids)
            out[s.q_start : s.q_stop, :, :width] = ids.to(torch.int32)
        return self.pack(out, topk)

    def sparse_attention(self, q, k, v, selection, *, cu_q, cu_k, block, scale):
        out, lse = torch.zeros(q.shape), torch.full(q.shape[:2], -torch.inf)
        group = self.group_of(q.shape[1], k.shape[1])
        for s in segments(cu_q, cu_k):
            position = torch.arange(s.q_len) + self.start(s)
            rows = slice(s.q_start, s.q_stop)
            kept = self.keep_tokens(selection[rows], s.k_len, block)
            kept = kept & self.visible(position, s.k_len, block)[:, None]
            keys, values = k[s.k_start : s.k_stop], v[s.k_start : s.k_stop]
            out[rows], lse[rows] = self.attend_rows(q[rows], keys, values, kept, group, scale)
        return self.finish(out, lse, q)

    def attend_rows(self, q, keys, values, kept, group, scale):
        read = kept.any(0).T[..., None]
        keys, values = keys.masked_fill(~read, 0.0), values.masked_fill(~read, 0.0)
        weight, lse = self.weigh(self.logits(q, keys[:, group], scale), kept[:, group])
        return self.sum_values(weight, values[:, group]), lse

    def gather_pages(self, pages, table, length, block):
        count = -(-length // block)
        return pages[table[:count].long()].transpose(1, 2).flatten(0, 1)[:length]

    def sparse_attention_backward(self, dout, q, k, v, out, lse, selection, **keywords):
        leaves = [x.detach().float().requires_grad_() for x in (q, k, v)]
        with torch.enable_grad():
            found, _ = Method.sparse_attention(Method(), *leaves, selection, **keywords)
            grads = torch.autograd.grad(found, leaves, dout.float())
        return tuple(grad.to(x.dtype) for grad, x in zip(grads, (q, k, v), strict=True))

    def index_kl(self, q_idx, k_idx, q, k, selection, *, cu_q, cu_k, block, scale, index_scale):
        leaves = [x.detach().float().requires_grad_() for x in (q_idx, k_idx)]
        count = q_idx.shape[0] * q_idx.shape[1]
        total = torch.zeros(())
        with torch.enable_grad():
            for s in segments(cu_q, cu_k):
                position = torch.arange(s.q_len) + Method.start(self, s)
                rows, tokens = slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop)
                kept = Method.keep_tokens(self, selection[rows], s.k_len, block)
                kept = kept & (torch.arange(s.k_len) <= position[:, None])[:, None]
                teacher = self.teach(q[rows].float(), k[tokens].float(), kept, scale)
                keys = leaves[1][tokens].expand(-1, q_idx.shape[1], -1)
                told = self.tell(leaves[0][rows], keys, kept, index_scale)
                total = total + self.diverge(teacher, told)
            total = total / self.count(count)
            grads = torch.autograd.grad(total, leaves)
        return total.detach(), *grads

    def count(self, count):
        return count

    def teach(self, q, k, kept, scale):
        """``[t, Hkv, S]``."""
        heads = q.unflatten(1, (k.shape[1], -1))
        logits = torch.einsum("tgrd,sgd->tgrs", heads, k) * scale
        logits = logits.masked_fill(~kept[:, :, None], -torch.inf)
        return logits.softmax(-1).nan_to_num().mean(2)

    def tell(self, q_idx, k_idx, kept, scale):
        logits = torch.einsum("tgd,sgd->tgs", q_idx, k_idx) * scale
        # A row of -inf alone has no softmax; masked before, it has no gradient of NaN either.
        logits = logits.masked_fill(~kept & kept.any(-1, keepdim=True), -torch.inf)
        return logits.log_softmax(-1).masked_fill(~kept, 0.0)

    def diverge(self, teacher, told):
        return (torch.xlogy(teacher, teacher) - teacher * told).sum()

    def sparse_decode(self, q, k_pages, v_pages, selection, *, page_table, k_lens, scale):
        block, lengths = k_pages.shape[2], k_lens.tolist()
        k, v = (
            torch.cat(
                [self.gather_pages(x, page_table[b], n, block) for b, n in enumerate(lengths)]
            )
            for x in (k_pages, v_pages)
        )
        out, lse = self.sparse_attention(
            q.flatten(0, 1),
            k,
            v,
            selection.flatten(0, 1),
            cu_q=cumulative([q.shape[1]] * len(lengths)),
            cu_k=cumulative(lengths),
            block=block,
            scale=scale,
        )
        return out.view_as(q), None if lse is None else lse.view(q.shape[:3])

    def paged_block_scores(self, q_idx, index_pages, *, page_table, k_lens, scale):
        block, lengths = index_pages.shape[2], k_lens.tolist()
        keys = [self.gather_pages(index_pages, page_table[b], n, block)
                for b, n in enumerate(lengths)]  # fmt: skip
        found = self.block_scores(
            q_idx.flatten(0, 1),
            torch.cat(keys),
            cu_q=cumulative([q_idx.shape[1]] * len(lengths)),
            cu_k=cumulative(lengths),
            block=block,
            scale=scale,
        )
        scores = torch.full((*found.shape[:2], page_table.shape[1]), -torch.inf)
        scores[..., : found.shape[2]] = found
        return scores.unflatten(0, q_idx.shape[:2])

    def attend_paged(
        self, q, q_idx, k_pages, v_pages, index_pages, *, page_table, k_lens, topk, local_blocks,
        sink_blocks, scale, index_scale,
    ):  # fmt: skip
        pages = {"page_table": page_table, "k_lens": k_lens}
        scores = self.paged_block_scores(q_idx, index_pages, **pages, scale=index_scale)
        chosen = self.select_blocks(
            scores.flatten(0, 1),
            cu_q=cumulative([q.shape[1]] * len(k_lens)),
            cu_k=cumulative(k_lens.tolist()),
            block=k_pages.shape[2],
            topk=topk,
            local_blocks=local_blocks,
            sink_blocks=sink_blocks,
        ).unflatten(0, q.shape[:2])
        out, _ = self.sparse_decode(q, k_pages, v_pages, chosen, **pages, scale=scale)
        return out, chosen

    def combine(self, outs, lses):
        total = lses.logsumexp(0)
        weight = torch.exp(lses - total.nan_to_num(neginf=0.0))[..., None]
        return torch.where(weight > 0, outs * weight, 0.0).sum(0), total

    def attend(
        self,
        q,
        k,
        v,
        q_idx,
        k_idx,
        *,
        cu_q,
        cu_k,
        block,
        topk,
        local_blocks,
        sink_blocks,
        scale,
        index_scale,
    ):
        lengths = {"cu_q": cu_q, "cu_k": cu_k}
        scores = self.block_scores(q_idx, k_idx, block=block, scale=index_scale, **lengths)
        selection = self.select_blocks(
            scores,
            block=block,
            topk=topk,
            local_blocks=local_blocks,
            sink_blocks=sink_blocks,
            **lengths,
        )
        out, _ = self.sparse_attention(q, k, v, selection, block=block, scale=scale, **lengths)
        return out, selection


def bare(method, *, with_selection):
    """The method as a callable alone, as an outsider would hand it in."""

    def attend(
        q, k, v, q_idx, k_idx, *, cu_q, cu_k, block, topk, local_blocks, sink_blocks, scale,
        index_scale,
    ):  # fmt: skip
        out, selection = method.attend(
            q, k, v, q_idx, k_idx, cu_q=cu_q, cu_k=cu_k, block=block, topk=topk,
            local_blocks=local_blocks, sink_blocks=sink_blocks, scale=scale,
            index_scale=index_scale,
        )  # fmt: skip
        return out, selection if with_selection else None

    return attend
