"""A stand-in for ``vllm.models.minimax_m3.common.ops`` of vLLM 0.33.0, in plain torch.

Signatures and refusals are those of its index_topk.py and sparse_attn.py; what it computes is
written here. What the kernels would read or write beyond their buffers is refused, what they leave
unwritten holds junk, and what they cannot compute is NaN, as it is there.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from adapting import Recorder, install

SIZE = 128
NAME = "vllm.models.minimax_m3.common.ops"
FUNCTIONS = (
    "minimax_m3_index_score",
    "minimax_m3_index_decode_score",
    "minimax_m3_index_topk",
    "minimax_m3_sparse_attn",
    "minimax_m3_sparse_attn_decode",
)
#: What stood in a buffer: a high score, below those that mark forced blocks.
_JUNK = 3e28
_FIRST, _LOCAL, _LEAST = 1e30, 1e29, -1e30
#: Queries whose blocks are scored together.
_TILE = 64


def installed(monkeypatch):
    """The fake in place of vLLM."""
    made = Fake()
    parts = NAME.split(".")
    for i in range(1, len(parts)):
        install(monkeypatch, ".".join(parts[:i]), __path__=[])
    install(monkeypatch, NAME, **{name: getattr(made, name) for name in FUNCTIONS})
    return made


class Fake:
    """The functions of the module; ``record`` has every call."""

    def __init__(self):
        self.record = Recorder()

    # --- the index branch -----------------------------------------------------------------------

    def minimax_m3_index_score(
        self, idx_q, index_kv_cache, block_table, cu_seqlens_q, seq_lens, prefix_lens,
        max_query_len, max_seq_len, num_kv_heads,
    ):  # fmt: skip
        self.record("minimax_m3_index_score", **_given(locals()))
        _check_index(idx_q, index_kv_cache, num_kv_heads)
        requests = _requests(idx_q, cu_seqlens_q, prefix_lens, max_query_len, seq_lens)
        _check_table(block_table, seq_lens, len(index_kv_cache))
        assert max_seq_len >= int(seq_lens.max()), "its buffer ends before the last block"
        score = _buffer(idx_q, max_seq_len)
        for b, (rows, first) in enumerate(requests):
            length = int(seq_lens[b])
            best = _maxima(idx_q[rows], index_kv_cache, block_table[b], length, first)
            for start in range(0, rows.stop - rows.start, _TILE):
                stop = min(start + _TILE, rows.stop - rows.start)
                seen = _blocks(min(length, first + start + _TILE))
                tile = slice(rows.start + start, rows.start + stop)
                score[:, tile, :seen] = best[:, start:stop, :seen]
        return score

    def minimax_m3_index_decode_score(
        self, idx_q, index_kv_cache, block_table, seq_lens, max_seq_len, init_blocks, local_blocks,
        num_kv_heads, decode_query_len, max_decode_query_len, score_out=None,
    ):  # fmt: skip
        self.record("minimax_m3_index_decode_score", **_given(locals()))
        _check_index(idx_q, index_kv_cache, num_kv_heads)
        _check_table(block_table, seq_lens, len(index_kv_cache))
        assert decode_query_len <= max_decode_query_len
        assert len(idx_q) == len(seq_lens) * decode_query_len
        assert num_kv_heads & (num_kv_heads - 1) == 0, "a range of Triton's is a power of two"
        assert score_out is None
        assert max_seq_len >= int(seq_lens.max()), "its buffer ends before the last block"
        score = _buffer(idx_q, max_seq_len)
        for b, length in enumerate(seq_lens.tolist()):
            rows = slice(b * decode_query_len, (b + 1) * decode_query_len)
            first = length - decode_query_len
            best = _maxima(idx_q[rows], index_kv_cache, block_table[b], length, first)
            for i in range(decode_query_len):
                seen = _blocks(first + i + 1)
                best[:, i, : min(seen, init_blocks)] = _FIRST
                best[:, i, max(0, seen - local_blocks) : seen] = _LOCAL
            score[:, rows, : _blocks(length)] = best
        return score

    def minimax_m3_index_topk(
        self, score, cu_seqlens_q, prefix_lens, max_query_len, topk, init_blocks, local_blocks,
        out=None,
    ):  # fmt: skip
        self.record("minimax_m3_index_topk", **_given(locals()))
        assert score.dtype == torch.float32
        assert score.ndim == 3
        assert out is None
        assert 1 <= topk <= 1024, "no tile is wide enough"
        requests = _requests(score[0], cu_seqlens_q, prefix_lens, max_query_len)
        found = torch.full((len(score), score.shape[1], topk), -1, dtype=torch.int32)
        for rows, first in requests:
            for t in range(rows.start, rows.stop):
                seen = (first + t - rows.start) // SIZE + 1
                assert seen <= score.shape[2], "a block without a score"
                for h in range(len(score)):
                    marked = score[h, t, :seen].nan_to_num(nan=_LEAST)
                    marked[:init_blocks] = _FIRST
                    marked[max(0, seen - local_blocks) :] = _LOCAL
                    ranked = sorted(((x, b) for b, x in enumerate(marked.tolist())), reverse=True)
                    # Empty places of a tile have the least score, and come out as -1.
                    ids = [b if x > _LEAST else -1 for x, b in ranked[:topk]]
                    found[h, t, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        return found

    # --- attention ------------------------------------------------------------------------------

    def minimax_m3_sparse_attn(
        self, q, kv_cache, topk_idx, block_table, cu_seqlens_q, seq_lens, prefix_lens,
        max_query_len, num_kv_heads, sm_scale, output, k_scale=None, v_scale=None,
    ):  # fmt: skip
        self.record("minimax_m3_sparse_attn", **_given(locals()))
        _check_attention(q, kv_cache, topk_idx, num_kv_heads, sm_scale, output, k_scale, v_scale)
        requests = _requests(q, cu_seqlens_q, prefix_lens, max_query_len, seq_lens)
        _check_table(block_table, seq_lens, len(kv_cache))
        output.fill_(torch.nan)
        for b, (rows, first) in enumerate(requests):
            for t in range(rows.start, rows.stop):
                position = first + t - rows.start
                for g in range(num_kv_heads):
                    ids = topk_idx[g, t, : position // SIZE + 1]
                    assert int(ids.min()) >= 0, "-1 is looked up as a block"
                    assert int(ids.max()) < block_table.shape[1], "a block beyond the page table"
                    where = (kv_cache[:, g], block_table[b], ids, position, int(seq_lens[b]))
                    heads = _heads(q, num_kv_heads, g)
                    output[t, heads] = _attended(q[t, heads], *where, sm_scale)

    def minimax_m3_sparse_attn_decode(
        self, q, kv_cache, topk_idx, block_table, seq_lens, num_kv_heads, sm_scale, output,
        decode_query_len, k_scale=None, v_scale=None,
    ):  # fmt: skip
        self.record("minimax_m3_sparse_attn_decode", **_given(locals()))
        _check_attention(q, kv_cache, topk_idx, num_kv_heads, sm_scale, output, k_scale, v_scale)
        assert len(q) == len(seq_lens) * decode_query_len
        _check_table(block_table, seq_lens, len(kv_cache))
        output.fill_(torch.nan)
        for t in range(len(q)):
            b, i = divmod(t, decode_query_len)
            position = int(seq_lens[b]) - decode_query_len + i
            for g in range(num_kv_heads):
                ids = topk_idx[g, t, : position // SIZE + 1]
                ids = ids[(ids >= 0) & (ids <= position // SIZE)]
                where = (kv_cache[:, g], block_table[b], ids, position, position + 1)
                heads = _heads(q, num_kv_heads, g)
                output[t, heads] = _attended(q[t, heads], *where, sm_scale)


def _given(arguments):
    return {name: x for name, x in arguments.items() if name != "self"}


def _blocks(tokens):
    return -(-tokens // SIZE)


def _buffer(idx_q, max_seq_len):
    width = -(-_blocks(max_seq_len) // 16) * 16
    return torch.full((idx_q.shape[1], len(idx_q), width), _JUNK)


def _maxima(q, cache, table, length, first):
    """Best raw products ``[H, n, blocks]`` of queries ``[n, H, D]``; the first is at ``first``."""
    keys = cache[table[: _blocks(length)].long()].flatten(0, 1).double()
    raw = torch.einsum("nhd,sd->hns", q.double(), keys)
    position = first + torch.arange(len(q))[:, None]
    raw = torch.where(torch.arange(len(keys)) <= position, raw, -torch.inf)
    return raw.unflatten(-1, (-1, SIZE)).amax(-1).float()


def _heads(q, groups, g):
    size = q.shape[1] // groups
    return slice(g * size, (g + 1) * size)


def _attended(q, cache, table, ids, position, length, scale):
    """One query's heads of a group, ``[R, D]``, over the pages of that group ``[P, 128, 2 D]``.

    Tokens before ``length`` are loaded and weighed, those of the future with 0.
    """
    tokens = (ids.long()[:, None] * SIZE + torch.arange(SIZE)).flatten()
    seen, loaded = tokens <= position, tokens < length
    # Its running maximum is -inf until a token is seen, and -inf less -inf is NaN.
    if not bool(seen[:SIZE].any()):
        return torch.full(q.shape, torch.nan, dtype=q.dtype)
    rows = cache[table[ids.long()].long()].flatten(0, 1).double()
    keys, values = torch.where(loaded[:, None], rows, 0.0).chunk(2, -1)
    logits = torch.where(seen & loaded, 0.0, -torch.inf) + q.double() @ keys.T * scale
    return (logits.softmax(-1) @ values).to(q.dtype)


def _requests(q, cu_seqlens_q, prefix_lens, max_query_len, seq_lens=None):
    """Rows of every request and the position of its first query."""
    for x in (cu_seqlens_q, prefix_lens, *(() if seq_lens is None else (seq_lens,))):
        assert x.dtype == torch.int32
        assert x.ndim == 1
        assert x.is_contiguous()
    starts, firsts = cu_seqlens_q.tolist(), prefix_lens.tolist()
    assert len(starts) == len(firsts) + 1
    assert starts[0] == 0
    assert starts[-1] == len(q)
    rows = [slice(a, b) for a, b in pairwise(starts)]
    assert type(max_query_len) is int
    assert max_query_len >= max(r.stop - r.start for r in rows), "the grid ends before the queries"
    if seq_lens is not None:
        ends = [first + r.stop - r.start for first, r in zip(firsts, rows, strict=True)]
        assert seq_lens.tolist() == ends, "queries end where the keys do"
    return list(zip(rows, firsts, strict=True))


def _check_table(table, seq_lens, pages):
    assert table.dtype == seq_lens.dtype == torch.int32
    assert table.stride(1) == 1
    assert seq_lens.is_contiguous()
    assert len(table) == len(seq_lens)
    for b, length in enumerate(seq_lens.tolist()):
        used = table[b, : _blocks(length)].tolist()
        assert len(used) == _blocks(length)
        assert all(0 <= page < pages for page in used)


def _check_index(q, cache, num_kv_heads):
    assert q.shape[1] == num_kv_heads
    assert cache.shape[1:] == (SIZE, q.shape[2])
    assert q.dtype == cache.dtype
    assert q.dtype in (torch.float16, torch.bfloat16)


def _check_attention(q, cache, ids, num_kv_heads, sm_scale, output, k_scale, v_scale):
    assert cache.shape[1:] == (num_kv_heads, SIZE, 2 * q.shape[2])
    assert q.dtype == cache.dtype == output.dtype
    assert q.dtype in (torch.float16, torch.bfloat16)
    assert ids.dtype == torch.int32
    assert ids.shape[:2] == (num_kv_heads, len(q))
    assert output.shape == q.shape
    assert output.data_ptr() != q.data_ptr()
    assert type(sm_scale) is float
    assert k_scale is v_scale is None, "factors belong to elements of eight bits"
