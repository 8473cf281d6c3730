"""A stand-in for ``flashinfer.msa_ops`` 0.7.2 on the CPU: its signatures, its rules, its results.

From the docstrings and the checks of that release. Where it leaves something open, the answer is
the least helpful one: of equal scores the later block, NaN first.
"""

from __future__ import annotations

import functools
import inspect
import itertools

import torch
from adapting import Recorder, install

HALVES = (torch.float16, torch.bfloat16)


def need(right, text):
    if not right:
        raise ValueError(text)


def rows_of(cu):
    totals = cu.tolist()
    return [slice(a, b) for a, b in itertools.pairwise(totals)]


def ints(name, x, *shape):
    need(isinstance(x, torch.Tensor) and x.dtype == torch.int32, f"{name} must be int32")
    need(x.ndim == len(shape), f"{name} must have {len(shape)} axes")
    for have, want in zip(x.shape, shape, strict=True):
        need(want is None or have == want, f"{name} must be {shape}, got {tuple(x.shape)}")
    need(x.is_contiguous(), f"{name} must be contiguous")


def in_pages(pages, table, lengths):
    """Pages ``[P, H, 128, 128]`` as one ``[n, H, 128]`` for each request."""
    found = []
    for b, n in enumerate(lengths.tolist()):
        used = [pages[int(table[b, i])].transpose(0, 1) for i in range(-(-n // 128))]
        found.append(torch.cat(used)[:n] if used else pages.new_zeros(0, *pages.shape[1::2]))
    return found


def halves(q, *keys):
    need(q.dtype in HALVES, "q must be bf16/fp16")
    need(q.ndim == 3 and q.shape[2] == 128, "q must be (total_q, num_qo_heads, 128)")
    for x in (q, *keys):
        need(x.is_contiguous(), "q, k and v must be contiguous")
    for x in keys:
        need(x.dtype == q.dtype, "k/v dtype must match q")
        need(q.shape[1] % x.shape[1] == 0, "num_qo_heads must be a multiple of num_kv_heads")


def kept(ids, n):
    """Tokens ``[n]`` of the blocks that a row lists."""
    chosen = [b for b in ids.tolist() if b != -1]
    need(bool((ids[len(chosen) :] == -1).all()), "q2k_indices must be padded with -1")
    need(chosen == sorted(set(chosen)), "q2k_indices must be sorted ascending")
    need(all(0 <= b * 128 < n for b in chosen), "q2k_indices must be blocks of k")
    mask = torch.zeros(n, dtype=torch.bool)
    for b in chosen:
        mask[b * 128 : b * 128 + 128] = True
    return mask


def attended(q, k, v, mask, scale):
    """Out and natural LSE of the heads of a group: q ``[t, R, d]``, k and v ``[n, d]``."""
    logits = torch.einsum("trd,nd->trn", q.double(), k.double()) * scale
    logits = torch.where(mask[:, None], logits, -torch.inf)
    lse = logits.logsumexp(-1)
    weight = (logits - lse.nan_to_num(neginf=0.0)[..., None]).exp()
    return weight @ torch.where(mask.any(0)[:, None], v, 0.0).double(), lse


class Fake:
    """The functions as methods; ``capability`` is that of the device it pretends to be on."""

    def __init__(self, capability):
        self.capability = capability
        self.record = Recorder()

    def into(self, monkeypatch):
        """Put the package where imports find it, and the device where torch asks for it."""
        ops = install(monkeypatch, "flashinfer.msa_ops")
        for name in ("proxy_score", "topk_select", "sparse_attention", "sparse_decode_attention"):
            setattr(ops, f"msa_{name}", self._recorded(getattr(self, f"msa_{name}")))
        install(monkeypatch, "flashinfer", msa_ops=ops, __version__="0.7.2.post1")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: self.capability)
        return self

    def _recorded(self, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            given = inspect.signature(function).bind(*args, **kwargs)
            given.apply_defaults()
            self.record(function.__name__, **given.arguments)
            return function(*args, **kwargs)

        return call

    @property
    def new(self):
        return self.capability[0] == 12

    def msa_proxy_score(
        self, q, k, cu_seqlens_q, cu_seqlens_k=None, *, page_table=None, seqused_k=None,
        causal=True, max_seqlen_q=None, max_k_tiles=None, output=None, reduce_heads=False,
        q_offset=None
    ):  # fmt: skip
        if not self.new:
            raise RuntimeError("msa_proxy_score requires SM120 or SM121 and CUDA >= 12.8")
        halves(q, k)
        need(output is None and q_offset is None, "not played by this fake")
        keys = self._keys(k, len(cu_seqlens_q) - 1, cu_seqlens_k, page_table, seqused_k)
        ints("cu_seqlens_q", cu_seqlens_q, None)
        rows = rows_of(cu_seqlens_q)
        longest = max(s.stop - s.start for s in rows)
        need(max_seqlen_q in (None, longest), "max_seqlen_q must be the longest")
        tiles = max(-(-len(x) // 128) for x in keys) if max_k_tiles is None else max_k_tiles
        share = q.shape[1] // k.shape[1]
        found = torch.full((q.shape[1], tiles, len(q)), -torch.inf)
        for s, mine in zip(rows, keys, strict=True):
            offset = len(mine) - (s.stop - s.start)
            for h in range(q.shape[1]):
                logits = q[s, h].double() @ mine[:, h // share].double().T
                if causal:
                    logits[torch.ones_like(logits).triu(offset + 1) > 0] = -torch.inf
                for b in range(-(-len(mine) // 128)):
                    found[h, b, s] = logits[:, b * 128 : b * 128 + 128].amax(-1).float()
        return found.amax(0, keepdim=True) if reduce_heads else found

    def msa_topk_select(
        self, max_score, topk, num_valid_pages=None, output=None, force_begin_blocks=0,
        force_end_blocks=0
    ):  # fmt: skip
        need(max_score.dtype == torch.float32, "max_score must be float32")
        need(max_score.ndim == 3 and max_score.is_contiguous(), "max_score must be dense, 3D")
        need(topk == 16, f"topk must be 16, got {topk}")
        need(output is None, "not played by this fake")
        heads, tiles, total = max_score.shape
        begin, end = force_begin_blocks, force_end_blocks
        need(begin >= 0 and end >= 0 and begin + end <= topk, "forced blocks must fit into topk")
        if isinstance(num_valid_pages, torch.Tensor):
            if not self.new:
                raise NotImplementedError("per-token num_valid_pages is only supported on SM120")
            ints("num_valid_pages", num_valid_pages, total)
            counts = num_valid_pages.clamp(0, tiles).tolist()
        else:
            count = tiles if num_valid_pages is None else num_valid_pages
            need(0 < count <= tiles, "num_valid_pages must be in (0, max_k_tiles]")
            need(begin + end <= count, "forced blocks must fit into num_valid_pages")
            counts = [count] * total
        nan = max_score.isnan().tolist()
        scores = max_score.nan_to_num(0.0, torch.inf, -torch.inf).tolist()
        found = torch.full((total, heads, topk), -1, dtype=torch.int32)
        for t, count in enumerate(counts):
            first = min(begin, count)
            last = min(end, count - first)
            forced = [*range(first), *range(count - last, count)]
            for h in range(heads):
                ranked = sorted(
                    (nan[h][b][t], scores[h][b][t], b) for b in range(first, count - last)
                )
                best = ranked[::-1][: topk - len(forced)]
                ids = sorted([*forced, *(b for _, _, b in best)])
                found[t, h, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        return found

    def msa_sparse_attention(
        self, q, k, v, q2k_indices, cu_seqlens_q, cu_seqlens_k=None, causal=False,
        softmax_scale=None, page_table=None, seqused_k=None, return_softmax_lse=False,
        k_scale=None, v_scale=None, k_global_scale=None, v_global_scale=None, q_offset=None,
        return_temperature_lse=False, lse_temperature_scale=1.0, workspace=None
    ):  # fmt: skip
        need(page_table is None and q_offset is None, "not played by this fake")
        need(not return_temperature_lse and lse_temperature_scale == 1.0, "not played")
        share = q.shape[1] // k.shape[1]
        if self.new:
            need(share in (1, 2, 4, 8, 16, 32, 64, 128), "group_size must divide 32/64/128")
            need(q2k_indices.shape[-1] in (4, 8, 16, 32), "topk must be 4, 8, 16, or 32")
        ints("cu_seqlens_q", cu_seqlens_q, None)
        scales = (k_scale, v_scale, k_global_scale, v_global_scale, workspace)
        rows = rows_of(cu_seqlens_q)
        lengths = cu_seqlens_k, page_table, seqused_k
        return self._attend(
            q, k, v, q2k_indices, rows, lengths, causal, softmax_scale, return_softmax_lse, scales
        )

    def msa_sparse_decode_attention(
        self, q, k, v, q2k_indices, *, page_table=None, seqused_k=None, cu_seqlens_k=None,
        seqlen_q=1, causal=True, softmax_scale=None, return_softmax_lse=False, k_scale=None,
        v_scale=None, k_global_scale=None, v_global_scale=None, q_offset=None,
        partial_dtype=None, force_fused=None, workspace=None, out=None
    ):  # fmt: skip
        if out is not None:
            raise NotImplementedError("out= is implemented by the packed-NVFP4 route")
        need(partial_dtype is None and force_fused is None and q_offset is None, "not played")
        need(seqlen_q > 0 and len(q) % seqlen_q == 0, "q rows must be batch_size * seqlen_q")
        need(q.shape[1] // k.shape[1] <= 16, "GQA group size must be <= 16 for decode")
        rows = [slice(a, a + seqlen_q) for a in range(0, len(q), seqlen_q)]
        scales = (k_scale, v_scale, k_global_scale, v_global_scale, workspace)
        lengths = cu_seqlens_k, page_table, seqused_k
        return self._attend(
            q, k, v, q2k_indices, rows, lengths, causal, softmax_scale, return_softmax_lse, scales
        )

    def _keys(self, k, batch, cu_seqlens_k, page_table, seqused_k):
        if page_table is None:
            need(k.ndim == 3 and k.shape[2] == 128, "flat k/v must be (total_k, num_kv_heads, 128)")
            ints("cu_seqlens_k", cu_seqlens_k, batch + 1)
            need(int(cu_seqlens_k[-1]) == len(k), "cu_seqlens_k must cover k")
            return [k[s] for s in rows_of(cu_seqlens_k)]
        need(k.ndim == 4 and k.shape[2:] == (128, 128), "paged k/v must be (pages, heads, 128, d)")
        ints("page_table", page_table, batch, None)
        ints("seqused_k", seqused_k, batch)
        need(cu_seqlens_k is None, "not played by this fake")
        return in_pages(k, page_table, seqused_k)

    def _attend(self, q, k, v, ids, rows, lengths, causal, scale, with_lse, scales):
        halves(q, k, v)
        need(k.shape == v.shape, "v must have the same shape as k")
        need(all(x is None for x in scales), "scales and workspaces are not for this device")
        ints("q2k_indices", ids, k.shape[1], len(q), None)
        if not self.new:
            need(ids.shape[2] == 16, "Blackwell MSA sparse attention requires topk=16")
            need(len(q) > 0, "q must contain at least one query")
            need(q.shape[1] // k.shape[1] <= 16, "the GQA group size must be in [1, 16]")
        out, lse = torch.full_like(q, torch.nan), torch.full(q.shape[:2], torch.nan)
        values = self._keys(v, len(rows), *lengths)
        for s, mine, theirs in zip(rows, self._keys(k, len(rows), *lengths), values, strict=True):
            if s.start == s.stop:
                continue
            offset = len(mine) - (s.stop - s.start)
            share = q.shape[1] // k.shape[1]
            for g in range(k.shape[1]):
                heads = slice(g * share, (g + 1) * share)
                chosen = [kept(row, len(mine)) for row in ids[g, s]]
                limits = [offset + t + 1 if causal else len(mine) for t in range(len(chosen))]
                seen = torch.arange(len(mine)) < torch.tensor(limits)[:, None]
                mask = torch.stack(chosen) & seen
                factor = 128**-0.5 if scale is None else scale
                found = attended(q[s, heads], mine[:, g], theirs[:, g], mask, factor)
                out[s, heads], lse[s, heads] = found[0].to(q.dtype), found[1].float()
        return (out, lse) if with_lse else out
