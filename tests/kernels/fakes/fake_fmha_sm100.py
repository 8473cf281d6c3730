"""A stand-in for ``fmha_sm100`` (MiniMax-AI/MSA, 0.1.1): its documented interface, in plain torch.

Signatures, layouts and refusals are those of python/fmha_sm100/api.py and cute/interface.py; what
it computes is written here, row by row. It refuses what the kernels would read wrongly.
"""

from __future__ import annotations

import torch
from adapting import Recorder, dense_parts

PAGE = 128


class Fake:
    """The functions of the package; ``record`` has every call."""

    def __init__(self):
        self.record = Recorder()

    # --- planning and running -------------------------------------------------------------------

    def fmha_sm100_plan(
        self,
        qo_segment_lens,
        kv_segment_lens,
        num_qo_heads,
        num_kv_heads=-1,
        qo_offset=None,
        num_kv_splits=-1,
        page_size=-1,
        output_maxscore=False,
        kv_block_num=-1,
        usable_SM_count=-1,
        causal=True,
        sparse_kernel_mode="auto",
        use_fp8_kvcache=False,
        device=None,
        stream=None,
        *,
        split_prefill_decode=True,
    ):
        arguments = {k: v for k, v in locals().items() if k != "self"}
        self.record("fmha_sm100_plan", **arguments)
        for lens in (qo_segment_lens, kv_segment_lens):
            assert lens.dtype in (torch.int32, torch.int64)
            assert lens.ndim == 1
            assert lens.device.type == "cpu", "a CUDA tensor costs a synchronisation"
        assert num_qo_heads % num_kv_heads == 0
        assert qo_offset is None
        assert causal
        if kv_block_num > 0:
            assert page_size == PAGE
            assert not output_maxscore
        return (False, 0, len(qo_segment_lens), None, arguments)

    def fmha_sm100(
        self,
        q,
        k,
        v,
        plan_info,
        kv_indices=None,
        kv_block_indexes=None,
        q_offset_override=None,
        out=None,
        max_score=None,
        page_table=None,
        *,
        sm_scale=None,
        q_scale=None,
        k_scale=None,
        v_scale=None,
        o_scale=None,
        output_maxscore=True,
        output_o=True,
        check_input_valid=False,
    ):
        arguments = {n: x for n, x in locals().items() if n != "self"}
        self.record("fmha_sm100", **arguments)
        plan = plan_info[4]
        assert all(x.is_contiguous() and x.dtype == torch.bfloat16 for x in (q, k, v))
        assert q.shape[1:] == (plan["num_qo_heads"], 128)
        assert page_table is None
        assert q_offset_override is None
        q_lens, k_lens = (plan[n].tolist() for n in ("qo_segment_lens", "kv_segment_lens"))
        assert sum(q_lens) == len(q)
        if kv_indices is None:
            assert k.ndim == 3
            assert k.shape[1] == plan["num_kv_heads"]
            assert len(k) == sum(k_lens)
            keys, values = _split(k, k_lens), _split(v, k_lens)
        else:
            assert k.shape[1:] == (plan["num_kv_heads"], PAGE, 128)
            assert kv_indices.dtype == torch.int32
            keys, values = (_gathered(x, kv_indices, k_lens) for x in (k, v))
        if not output_o:
            assert plan["output_maxscore"]
            return None, self._maxima(q, keys, q_lens, k_lens)
        assert kv_indices is not None, "sparse attention requires paged keys"
        width = plan["kv_block_num"]
        assert kv_block_indexes.shape == (len(q), plan["num_kv_heads"], width)
        assert kv_block_indexes.dtype == torch.int32
        _require_ascending(kv_block_indexes)
        scale = 128**-0.5 if sm_scale is None else sm_scale
        parts, start = [], 0
        for b, n in enumerate(q_lens):
            rows = slice(start, start + n)
            ids, first = kv_block_indexes[rows], k_lens[b] - n
            kept = _kept(ids, first, k_lens[b])
            parts.append(dense_parts(q[rows], keys[b], values[b], kept, scale)[0])
            start += n
        return torch.cat(parts).to(q.dtype), None

    def _maxima(self, q, keys, q_lens, k_lens):
        """Raw maxima ``[H, tiles, T]``, the tiles in multiples of 128."""
        heads = q.shape[1] // keys[0].shape[1]
        tiles = -(-max(-(-n // 128) for n in k_lens) // 128) * 128
        score = torch.full((q.shape[1], tiles, len(q)), -torch.inf)
        start = 0
        for b, n in enumerate(q_lens):
            for i in range(n):
                seen = k_lens[b] - n + i + 1
                for h in range(q.shape[1]):
                    raw = keys[b][:seen, h // heads].float() @ q[start + i, h].float()
                    whole = torch.nn.functional.pad(raw, (0, -seen % 128), value=-torch.inf)
                    best = whole.view(-1, 128).amax(1)
                    score[h, : len(best), start + i] = best
            start += n
        return score

    # --- selecting ------------------------------------------------------------------------------

    def sparse_topk_select(
        self,
        max_score,
        topk,
        num_valid_pages=None,
        output=None,
        force_begin_blocks=0,
        force_end_blocks=0,
    ):
        self.record("sparse_topk_select", **{k: v for k, v in locals().items() if k != "self"})
        assert max_score.dtype == torch.float32
        assert max_score.ndim == 3
        assert max_score.is_contiguous()
        assert topk == 16
        heads, tiles, rows = max_score.shape
        assert tiles < 12288
        valid = tiles if num_valid_pages is None else num_valid_pages
        assert isinstance(valid, int)
        assert 0 < valid <= tiles
        assert force_begin_blocks == force_end_blocks == 0
        ids = torch.full((rows, heads, topk), -1, dtype=torch.int32)
        # By id range alone: a block at -inf is taken where too few others are left.
        order = max_score[:, :valid].sort(dim=1, descending=True, stable=True).indices
        best = order[:, :topk].sort(dim=1).values
        ids[..., : best.shape[1]] = best.permute(2, 0, 1).int()
        return ids

    # --- lists of queries -------------------------------------------------------------------------

    def build_k2q_csr(
        self,
        q2k_indices,
        cu_seqlens_q,
        cu_seqlens_k,
        kv_block_size,
        *,
        total_k=None,
        max_seqlen_k=None,
        max_seqlen_q=None,
        total_rows=None,
        qhead_per_kv=1,
        return_schedule=False,
    ):
        arguments = {k: v for k, v in locals().items() if k != "self"}
        self.record("build_k2q_csr", **arguments)
        assert q2k_indices.dtype == torch.int32
        assert q2k_indices.is_contiguous()
        if kv_block_size != 128 or q2k_indices.shape[2] not in (4, 8, 16, 32):
            raise ValueError("unsupported block size or topK")
        if total_k is None:
            raise ValueError("total_k is required")
        q_lens, k_lens = (x.diff().tolist() for x in (cu_seqlens_q, cu_seqlens_k))
        assert q2k_indices.shape[1] == sum(q_lens), "heads come first"
        assert total_k == sum(k_lens)
        assert total_rows == sum(-(-n // 128) for n in k_lens)
        assert (max_seqlen_q, max_seqlen_k) == (max(q_lens), max(k_lens))
        held = q2k_indices >= 0
        assert not bool((held[..., 1:] & ~held[..., :-1]).any()), "-1 stands at the tail"
        schedule = object()
        self._lists = (q2k_indices, schedule, qhead_per_kv)
        row_ptr = torch.zeros(q2k_indices.shape[0], total_rows + 1, dtype=torch.int32)
        rows = torch.zeros(q2k_indices.shape[0], q2k_indices[0].numel(), dtype=torch.int32)
        return (row_ptr, rows, schedule) if return_schedule else (row_ptr, rows)

    def sparse_atten_func(
        self,
        q,
        k,
        v,
        k2q_row_ptr,
        k2q_q_indices,
        topK,
        *,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        blk_kv=128,
        causal=False,
        softmax_scale=None,
        lse_temperature_scale=1.0,
        return_temperature_lse=False,
        partial_dtype=torch.bfloat16,
        return_softmax_lse=False,
        page_table=None,
        seqused_k=None,
        schedule=None,
        usable_SM_count=-1,
        qk_dtype=None,
        pv_dtype=None,
    ):
        arguments = {n: x for n, x in locals().items() if n != "self"}
        self.record("sparse_atten_func", **arguments)
        assert all(x.is_contiguous() and x.dtype == torch.bfloat16 for x in (q, k, v))
        if q.shape[2] != 128 or q.shape[1] // k.shape[1] not in (1, 2, 4, 8, 16):
            raise NotImplementedError("head dim or group")
        assert page_table is None
        ids, tied, heads = self._lists
        assert schedule is tied, "a schedule belongs to its lists"
        assert heads == q.shape[1] // k.shape[1]
        assert topK == ids.shape[2]
        scale = 128**-0.5 if softmax_scale is None else softmax_scale
        outs, lses = [], []
        starts_q, starts_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        for b in range(len(starts_q) - 1):
            rows, keys = slice(*starts_q[b : b + 2]), slice(*starts_k[b : b + 2])
            n, s = rows.stop - rows.start, keys.stop - keys.start
            kept = _kept(ids[:, rows].transpose(0, 1), s - n if causal else s, s)
            out, lse = dense_parts(q[rows], k[keys], v[keys], kept, scale)
            outs.append(out.to(q.dtype))
            lses.append(lse)
        out = torch.cat(outs)
        return (out, torch.cat(lses)) if return_softmax_lse else out


def _split(x, lens):
    return list(x.split(lens))


def _gathered(pages, kv_indices, k_lens):
    """Keys ``[n, Hkv, D]`` of every request from its pages."""
    found, start = [], 0
    for n in k_lens:
        count = -(-n // PAGE)
        mine = pages[kv_indices[start : start + count].long()]
        found.append(mine.transpose(1, 2).flatten(0, 1)[:n])
        start += count
    assert start == len(kv_indices), "one entry for each used page, no more"
    return found


def _kept(ids, first, tokens):
    """(row, group) -> tokens of its blocks that are not of the future; query 0 is at ``first``."""
    token = torch.arange(tokens)

    def kept(t, g):
        chosen = {int(i) for i in ids[t, g] if i >= 0}
        mine = torch.zeros(tokens, dtype=torch.bool)
        for block in chosen:
            mine[block * 128 : (block + 1) * 128] = True
        return mine & (token <= first + t)

    return kept


def _require_ascending(ids):
    held = ids >= 0
    assert not bool((held[..., 1:] & ~held[..., :-1]).any()), "-1 stands at the tail"
    pairs = held[..., 1:]
    assert bool((ids[..., 1:] > ids[..., :-1])[pairs].all()), "ids are strictly ascending"
