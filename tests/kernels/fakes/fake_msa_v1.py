"""A stand-in for ``inference.msa_v1`` (MiniMax-AI/MSA, minimax-msa 0.1.0): wrappers in bfloat16.

Signatures, layouts and refusals are those of inference/msa_v1/**/bf16 and of what they import; what
it computes is the specification's. It refuses what the kernels would read wrongly, and hands out
what is overwritten by the next run.
"""

from __future__ import annotations

from functools import partial

import torch
from adapting import Recorder

from msa import reference
from msa.packing import count_blocks, cumulative

PAGE = 128
TOPK = 16
PREFILL_INDEXER = "BatchPrefillIndexerWithPagedKVCacheWrapper"
PREFILL = "BatchPrefillWithPagedKVCacheWrapper"
DECODE_INDEXER = "BatchDecodeIndexerWithPagedKVCacheWrapper"
DECODE = "BatchDecodeWithPagedKVCacheWrapper"


class Fake:
    """Modules of the package and their wrappers; ``record`` has every call, as ``wrapper.plan``."""

    def __init__(self):
        self.record = Recorder()
        wrappers = {
            "indexer.prefill": (PREFILL_INDEXER, PrefillIndexer),
            "attention.prefill": (PREFILL, Prefill),
            "indexer.decode": (DECODE_INDEXER, DecodeIndexer),
            "attention.decode": (DECODE, Decode),
        }
        self.modules = {
            f"inference.msa_v1.{where}.bf16": {name: partial(kind, self.record)}
            for where, (name, kind) in wrappers.items()
        }


class Wrapper:
    """Results are its own: one tensor for each shape, which every run writes."""

    planned = None

    def __init__(self, record):
        self._record, self._own = record, {}

    def note(self, step, arguments):
        arguments = {name: x for name, x in arguments.items() if name != "self"}
        self._record(f"{type(self).__name__}.{step}", **arguments)
        if step == "plan":
            self.planned = arguments
        elif self.planned is None:
            raise RuntimeError("plan() must be called before run()")

    def owned(self, result):
        mine = self._own.setdefault(tuple(result.shape), torch.empty_like(result))
        return mine.copy_(result)


class PrefillIndexer(Wrapper):
    def plan(
        self,
        cu_seqlens_q,
        cu_seqlens_k,
        page_table,
        *,
        total_q,
        max_seqlen_q,
        max_seqlen_k,
        num_index_heads=4,
    ):
        self.note("plan", locals())
        require_metadata(cu_seqlens_q, cu_seqlens_k, page_table)
        require_lengths(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
        assert num_index_heads in (1, 2, 4)
        assert total_q == int(cu_seqlens_q[-1]) > 0
        assert 0 < count_blocks(max_seqlen_k, PAGE) <= min(8192, page_table.shape[1])

    def run(self, q, paged_k_cache, *, out=None):
        self.note("run", locals())
        plan = self.planned
        require_bfloat16(q, paged_k_cache)
        assert q.shape == (plan["total_q"], plan["num_index_heads"], 128)
        assert paged_k_cache.shape[1:] == (1, PAGE, 128)
        cu_q, cu_k = plan["cu_seqlens_q"], plan["cu_seqlens_k"]
        keys = packed(paged_k_cache, plan["page_table"], cu_k.diff().tolist())
        assert out is None
        return self.owned(chosen(q, keys, cu_q, cu_k))


class Prefill(Wrapper):
    def __init__(self, record, *, enable_fp16_softmax=None, enable_2x_fp8=None):
        super().__init__(record)
        assert enable_fp16_softmax is enable_2x_fp8 is None

    def plan(
        self,
        topk_indices,
        cu_seqlens_q,
        cu_seqlens_k,
        page_table,
        *,
        num_q_heads=64,
        num_kv_heads=None,
        total_k,
        total_rows,
        max_seqlen_q,
        max_seqlen_k,
        causal=True,
        sm_scale=None,
    ):
        self.note("plan", locals())
        if not causal:
            raise NotImplementedError("BF16 prefill supports only causal attention")
        require_metadata(cu_seqlens_q, cu_seqlens_k, page_table, topk_indices)
        require_lengths(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
        require_heads(num_q_heads, num_kv_heads)
        require_scale(sm_scale)
        lens = cu_seqlens_k.diff().tolist()
        assert total_k == sum(lens)
        assert total_rows == sum(count_blocks(n, PAGE) for n in lens)
        assert topk_indices.shape == (num_kv_heads, int(cu_seqlens_q[-1]), TOPK), "heads come first"
        # Not looked at by the kernels, and read wrongly.
        require_rows(topk_indices.transpose(0, 1), cu_seqlens_q, cu_seqlens_k)

    def run(self, q, paged_kv_cache, *, out=None, lse=None, return_lse=False):
        self.note("run", locals())
        plan = self.planned
        assert isinstance(paged_kv_cache, tuple)
        require_bfloat16(q, *paged_kv_cache)
        assert q.shape == (plan["topk_indices"].shape[1], plan["num_q_heads"], 128)
        ids = plan["topk_indices"].transpose(0, 1).contiguous()
        cu_q, cu_k = plan["cu_seqlens_q"], plan["cu_seqlens_k"]
        assert out is lse is None
        assert not return_lse
        return self.owned(attended(q, paged_kv_cache, ids, plan, cu_q, cu_k))


class DecodeIndexer(Wrapper):
    def __init__(
        self,
        record,
        workspace_buffer=None,
        *,
        use_cuda_graph=False,
        page_table_buffer=None,
        seq_lens_buffer=None,
    ):
        super().__init__(record)
        assert workspace_buffer is page_table_buffer is seq_lens_buffer is None
        assert not use_cuda_graph

    def plan(self, page_table, seq_lens, *, num_index_heads=1, query_length=8, shared_plan=None):
        self.note("plan", locals())
        require_metadata(page_table, seq_lens)
        assert page_table.shape[1] <= 8192
        assert num_index_heads in (1, 2, 4)
        assert 1 <= query_length <= 16
        assert int(seq_lens.min()) >= query_length, "lengths include the queries"
        assert shared_plan is None

    def run(self, q, paged_k_cache, *, out=None):
        self.note("run", locals())
        plan = self.planned
        require_bfloat16(q, paged_k_cache)
        batch, steps = len(plan["page_table"]), plan["query_length"]
        assert q.shape == (batch, steps, plan["num_index_heads"], 128)
        assert paged_k_cache.shape[1:] == (PAGE, 128), "no axis of heads"
        lens = plan["seq_lens"].tolist()
        keys = packed(paged_k_cache[:, None], plan["page_table"], lens)
        assert out is None
        cu_q, cu_k = cumulative([steps] * batch), cumulative(lens)
        return self.owned(chosen(q.flatten(0, 1), keys, cu_q, cu_k))


class Decode(Wrapper):
    def __init__(self, record, workspace_buffer=None, *, enable_pdl=True):
        super().__init__(record)
        assert workspace_buffer is None
        assert enable_pdl

    def plan(
        self,
        topk_indices,
        page_table,
        seq_lens,
        *,
        q_len_per_req,
        num_q_heads=64,
        num_kv_heads=4,
        sm_scale=None,
    ):
        self.note("plan", locals())
        require_metadata(page_table, seq_lens, topk_indices)
        require_heads(num_q_heads, num_kv_heads)
        require_scale(sm_scale)
        batch = len(page_table)
        if topk_indices.ndim != 3 or topk_indices.shape[:2] != (
            batch * q_len_per_req,
            num_kv_heads,
        ):
            raise ValueError(
                "topk_indices must have shape [batch * q_len_per_req, num_kv_heads, topk]"
            )
        if int(seq_lens.min()) < q_len_per_req:
            raise ValueError("every seq_lens entry must include the full query chunk")
        cu_q, cu_k = cumulative([q_len_per_req] * batch), cumulative(seq_lens.tolist())
        require_rows(topk_indices, cu_q, cu_k)

    def run(self, q, paged_kv_cache, *, out=None):
        self.note("run", locals())
        plan = self.planned
        require_bfloat16(q, *paged_kv_cache)
        ids = plan["topk_indices"]
        assert q.shape == (len(ids), plan["num_q_heads"], 128)
        cu_q = cumulative([plan["q_len_per_req"]] * len(plan["page_table"]))
        assert out is None
        cu_k = cumulative(plan["seq_lens"].tolist())
        return self.owned(attended(q, paged_kv_cache, ids, plan, cu_q, cu_k))


# --- what it computes ---------------------------------------------------------------------------


def packed(pages, table, lens):
    """Keys ``[Tk, H, 128]`` of every request from pages ``[P, H, 128, 128]``."""
    parts = []
    for b, n in enumerate(lens):
        mine = pages[table[b, : count_blocks(n, PAGE)].long()]
        parts.append(mine.transpose(1, 2).flatten(0, 1)[:n])
    return torch.cat(parts)


def chosen(q, keys, cu_q, cu_k):
    """Ids ``[H, T, 16]``: 15 older blocks, the newest first, then the own one, then -1.

    The order of scores is that of 16 bits.
    """
    lens = {"cu_q": cu_q, "cu_k": cu_k, "block": PAGE}
    scores = reference.block_scores(q, keys, **lens, scale=128**-0.5).bfloat16().float()
    ids = reference.select_blocks(scores, **lens, topk=TOPK)
    used = (ids >= 0).sum(-1, keepdim=True)
    slot = torch.arange(TOPK)
    back = torch.where(slot < used - 1, used - 2 - slot, slot)
    return ids.gather(-1, back).transpose(0, 1).contiguous()


def attended(q, caches, ids, plan, cu_q, cu_k):
    for pages in caches:
        assert pages.shape[1:] == (plan["num_kv_heads"], PAGE, 128), "heads before tokens"
    k, v = (packed(pages, plan["page_table"], cu_k.diff().tolist()) for pages in caches)
    scale = 128**-0.5 if plan["sm_scale"] is None else plan["sm_scale"]
    lens = {"cu_q": cu_q, "cu_k": cu_k, "block": PAGE}
    return reference.sparse_attention(q, k, v, ids, **lens, scale=scale)[0]


# --- what it refuses ----------------------------------------------------------------------------


def require_dense(x):
    assert x.is_contiguous()
    assert x.data_ptr() % 16 == 0, "16-byte aligned"


def require_metadata(*tensors):
    for x in tensors:
        require_dense(x)
        assert x.dtype == torch.int32


def require_bfloat16(*tensors):
    for x in tensors:
        require_dense(x)
        assert x.dtype == torch.bfloat16


def require_lengths(cu_q, cu_k, longest_q, longest_k):
    assert longest_q == int(cu_q.diff().max())
    assert longest_k == int(cu_k.diff().max())
    assert bool((cu_k.diff() >= cu_q.diff()).all()), "lengths include the queries"


def require_heads(num_q_heads, num_kv_heads):
    if num_q_heads % num_kv_heads or num_q_heads // num_kv_heads not in (8, 16):
        raise ValueError("8 or 16 query heads per KV head")


def require_scale(sm_scale):
    if sm_scale is not None and not 0 < sm_scale < float("inf"):
        raise ValueError("sm_scale must be finite and positive")


def require_rows(ids, cu_q, cu_k):
    """Ids ``[T, H, 16]``: each query's own block last, min(16, own + 1) of them, then -1."""
    firsts = (cu_k.diff() - cu_q.diff()).tolist()
    positions = [
        first + i for first, n in zip(firsts, cu_q.diff().tolist(), strict=True) for i in range(n)
    ]
    for row, position in zip(ids.tolist(), positions, strict=True):
        own = position // PAGE
        for group in row:
            valid = group[: min(TOPK, own + 1)]
            assert min(valid) >= 0, "fewer blocks than there have to be"
            assert set(group[len(valid) :]) <= {-1}, "more blocks than there have to be"
            assert valid[-1] == own, "the own block is not the last one"
            assert max(valid) == own, "a block of the future"
            assert len(set(valid)) == len(valid), "a block twice"
