# ruff: noqa: ARG002  # a fault often is an argument that nobody reads
"""Faults around the arithmetic: layouts, outputs, pages, and what one call leaves to the next."""

import math

import torch
from faulty_method import Method


class LargeGroupPartlyStored(Method):
    def finish(self, out, lse, q):
        out = out.clone()
        out[:, 8:] = 0 if q.shape[1] == 16 else out[:, 8:]
        return super().finish(out, lse, q)


class SwappedOutput(Method):
    def finish(self, out, lse, q):
        out = out.transpose(0, 1).reshape(out.shape)
        return super().finish(out, lse, q)


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


class OutputInFloat32(Method):
    def finish(self, out, lse, q):
        return out.float(), lse


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


class DecodeWantsAscendingIds(Method):
    """Merges the lists of a tile: an id that is lower than one before it is lost."""

    def sparse_decode(self, q, k_pages, v_pages, selection, **keywords):
        before = torch.nn.functional.pad(selection[..., :-1], (1, 0), value=-1).cummax(-1).values
        kept = torch.where(selection > before, selection, -1)
        return super().sparse_decode(q, k_pages, v_pages, kept, **keywords)


class ScaleOfTheCacheAssumed(Method):
    def sparse_decode(self, q, *tensors, scale, **keywords):
        del scale
        return super().sparse_decode(q, *tensors, scale=q.shape[-1] ** -0.5, **keywords)


class PagesTokenFirst(Method):
    """[page, head, token, D] read as [page, token, head, D]."""

    def gather_pages(self, pages, table, length, block):
        swapped = pages.reshape(pages.shape[0], pages.shape[2], pages.shape[1], pages.shape[3])
        return super().gather_pages(swapped.transpose(1, 2), table, length, block)


BOTH = [
    LargeGroupPartlyStored,
    SwappedOutput,
    StridesIgnored,
    AllZero,
    LastRowsSkipped,
    OutputInFloat32,
    Stale,
    CachedByAddress,
    OneBuffer,
    WritesQueries,
    Noisy,
    Crashing,
]
OPERATIONS = [
    TailUnmasked,
    EmptyEntryIsLastPage,
    PagesUnshuffled,
    PagesTokenFirst,
    DecodeWantsAscendingIds,
    ScaleOfTheCacheAssumed,
]
