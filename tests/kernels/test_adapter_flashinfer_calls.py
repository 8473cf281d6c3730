"""What FlashInfer's MSA kernels are called with, argument by argument."""

from __future__ import annotations

import pytest
import torch
from fake_flashinfer import Fake

from msa import reference
from msa.packing import cumulative
from msa_kernels.adapters import flashinfer_msa

SETTINGS = {"block": 128, "topk": 16, "local_blocks": 2, "sink_blocks": 1}
IDS = torch.tensor([[16, 3, 0, -1], [1, -1, 17, -1]], dtype=torch.int32)


@pytest.fixture
def fake(monkeypatch):
    return Fake((12, 0)).into(monkeypatch)


@pytest.fixture
def old(monkeypatch):
    """A device of compute capability 10.0."""
    return Fake((10, 0)).into(monkeypatch)


def lengths():
    return cumulative([4, 2]), cumulative([300, 2200])


def drawn(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def rest(call, *named):
    """What else a call was given."""
    return {name: value for name, value in vars(call).items() if name not in named}


def test_scores(fake):
    q_idx, k_idx = drawn(6, 2, 128), drawn(2500, 1, 128)
    cu_q, cu_k = lengths()
    got = flashinfer_msa.block_scores(q_idx, k_idx, cu_q=cu_q, cu_k=cu_k, block=128, scale=0.25)
    (call,) = fake.record.of("msa_proxy_score")
    assert torch.equal(call.q, q_idx)
    assert torch.equal(call.k, k_idx)
    assert call.cu_seqlens_q is cu_q
    assert call.cu_seqlens_k is cu_k
    assert call.causal is True
    assert call.reduce_heads is False
    assert call.max_k_tiles == 18
    others = ("page_table", "seqused_k", "max_seqlen_q", "output", "q_offset")
    named = ("q", "k", "cu_seqlens_q", "cu_seqlens_k", "causal", "reduce_heads", "max_k_tiles")
    assert rest(call, *named) == dict.fromkeys(others)
    assert (got.shape, got.dtype) == ((6, 2, 18), torch.float32)


def test_paged_scores(fake):
    q_idx, pages = drawn(2, 3, 4, 128), drawn(5, 1, 128, 128)
    table = torch.tensor([[4, 2, 9], [1, 9, 9]], dtype=torch.int32)
    k_lens = torch.tensor([200, 7], dtype=torch.int32)
    got = flashinfer_msa.paged_block_scores(
        q_idx, pages, page_table=table, k_lens=k_lens, scale=0.25
    )
    (call,) = fake.record.of("msa_proxy_score")
    assert torch.equal(call.q, q_idx.view(6, 4, 128))
    assert torch.equal(call.k, pages)
    assert call.cu_seqlens_q.tolist() == [0, 3, 6]
    assert call.cu_seqlens_q.dtype == torch.int32
    assert torch.equal(call.page_table, table)
    assert call.seqused_k is k_lens
    assert (call.max_seqlen_q, call.max_k_tiles) == (3, 3)
    assert call.causal is True
    assert call.reduce_heads is False
    named = ("q", "k", "cu_seqlens_q", "page_table", "seqused_k", "max_seqlen_q",
             "max_k_tiles", "causal", "reduce_heads")  # fmt: skip
    assert rest(call, *named) == dict.fromkeys(("cu_seqlens_k", "output", "q_offset"))
    assert got.shape == (2, 3, 4, 3)
    assert bool(got[1, :, :, 1:].isneginf().all())


def test_selection_on_12(fake):
    scores, (cu_q, cu_k) = drawn(6, 2, 18, dtype=torch.float32), lengths()
    flashinfer_msa.select_blocks(scores, cu_q=cu_q, cu_k=cu_k, **SETTINGS)
    (call,) = fake.record.of("msa_topk_select")
    assert torch.equal(call.max_score, scores.permute(1, 2, 0))
    assert call.num_valid_pages.dtype == torch.int32
    # Queries at 296 to 299 and at 2198 and 2199.
    assert call.num_valid_pages.tolist() == [3, 3, 3, 3, 18, 18]
    assert rest(call, "max_score", "num_valid_pages") == {
        "topk": 16,
        "output": None,
        "force_begin_blocks": 1,
        "force_end_blocks": 2,
    }


def test_selection_on_10(old):
    scores, (cu_q, cu_k) = drawn(6, 2, 18, dtype=torch.float32), lengths()
    flashinfer_msa.select_blocks(scores, cu_q=cu_q, cu_k=cu_k, **SETTINGS)
    (call,) = old.record.of("msa_topk_select")
    given = call.max_score.permute(2, 0, 1)
    assert call.max_score.is_contiguous()
    assert bool((given[:4, :, :3] == torch.inf).all()), "first, and two newest"
    assert bool(given[:4, :, 3:].isneginf().all()), "the future"
    assert bool((given[4:, :, [0, 16, 17]] == torch.inf).all())
    assert torch.equal(given[4:, :, 1:16], scores[4:, :, 1:16])
    assert rest(call, "max_score") == {
        "topk": 16,
        "num_valid_pages": 18,
        "output": None,
        "force_begin_blocks": 0,
        "force_end_blocks": 0,
    }


def test_attention(fake):
    q, k, v = drawn(6, 4, 128), drawn(2500, 2, 128), drawn(2500, 2, 128)
    cu_q, cu_k = lengths()
    selection = IDS.expand(6, 2, 4)
    flashinfer_msa.sparse_attention(q, k, v, selection, cu_q=cu_q, cu_k=cu_k, block=128, scale=0.2)
    (call,) = fake.record.of("msa_sparse_attention")
    assert all(torch.equal(a, b) for a, b in ((call.q, q), (call.k, k), (call.v, v)))
    ids = call.q2k_indices
    assert (ids.shape, ids.dtype, ids.is_contiguous()) == ((2, 6, 16), torch.int32, True)
    assert ids[0, 0].tolist() == [0] + [-1] * 15, "3 and 16 are in the future of query 0"
    assert ids[1, 0].tolist() == [1] + [-1] * 15
    assert ids[0, 5].tolist() == [0, 3, 16] + [-1] * 13
    assert ids[1, 5].tolist() == [1, 17] + [-1] * 14
    assert call.cu_seqlens_q is cu_q
    assert call.cu_seqlens_k is cu_k
    assert call.causal is True
    assert call.softmax_scale == 0.2
    assert call.return_softmax_lse is True
    assert call.return_temperature_lse is False
    assert call.lse_temperature_scale == 1.0
    others = ("page_table", "seqused_k", "k_scale", "v_scale", "k_global_scale",
              "v_global_scale", "q_offset", "workspace")  # fmt: skip
    named = ("q", "k", "v", "q2k_indices", "cu_seqlens_q", "cu_seqlens_k", "causal",
             "softmax_scale", "return_softmax_lse", "return_temperature_lse",
             "lse_temperature_scale")  # fmt: skip
    assert rest(call, *named) == dict.fromkeys(others)


def test_decode(fake):
    q, pages = drawn(2, 3, 4, 128), drawn(5, 2, 128, 128)
    table = torch.tensor([[4, 2, 9], [1, 9, 9]], dtype=torch.int32)
    k_lens = torch.tensor([131, 7], dtype=torch.int32)
    selection = torch.tensor([[1, 0], [-1, 0]], dtype=torch.int32).expand(2, 3, 2, 2)
    flashinfer_msa.sparse_decode(
        q, pages, -pages, selection, page_table=table, k_lens=k_lens, scale=0.2
    )
    (call,) = fake.record.of("msa_sparse_decode_attention")
    assert torch.equal(call.q, q.view(6, 4, 128))
    assert torch.equal(call.k, pages)
    assert torch.equal(call.v, -pages)
    ids = call.q2k_indices
    assert (ids.shape, ids.dtype, ids.is_contiguous()) == ((2, 6, 16), torch.int32, True)
    # Queries at 128 to 130 and at 4 to 6: the second request has one block.
    assert ids[0, :, :3].tolist() == [[0, 1, -1]] * 3 + [[0, -1, -1]] * 3
    assert ids[1, :, :3].tolist() == [[0, -1, -1]] * 6
    assert bool((ids[..., 3:] == -1).all())
    assert torch.equal(call.page_table, table)
    assert call.seqused_k is k_lens
    assert call.seqlen_q == 3
    assert call.causal is True
    assert call.softmax_scale == 0.2
    assert call.return_softmax_lse is True
    others = ("cu_seqlens_k", "k_scale", "v_scale", "k_global_scale", "v_global_scale",
              "q_offset", "partial_dtype", "force_fused", "workspace", "out")  # fmt: skip
    named = ("q", "k", "v", "q2k_indices", "page_table", "seqused_k", "seqlen_q", "causal",
             "softmax_scale", "return_softmax_lse")  # fmt: skip
    assert rest(call, *named) == dict.fromkeys(others)


@pytest.mark.usefixtures("old")
def test_what_is_seen_outranks_the_future_even_at_minus_infinity():
    scores = torch.full((3, 1, 18), -torch.inf)
    cu_q, cu_k = cumulative([1, 2]), cumulative([2200, 130])
    lengths = {"cu_q": cu_q, "cu_k": cu_k, "block": 128, "topk": 16}
    got = flashinfer_msa.select_blocks(scores, **lengths)
    assert torch.equal(got[1:], reference.select_blocks(scores, **lengths)[1:])


def test_a_batch_without_queries(fake):
    cu_q, cu_k = cumulative([0]), cumulative([130])
    lengths = {"cu_q": cu_q, "cu_k": cu_k, "block": 128}
    q, k = drawn(0, 2, 128), drawn(130, 1, 128)
    scores = flashinfer_msa.block_scores(q, k, **lengths, scale=1.0)
    assert (scores.shape, scores.dtype) == ((0, 2, 2), torch.float32)
    chosen = flashinfer_msa.select_blocks(scores, **lengths, topk=16)
    assert (chosen.shape, chosen.dtype) == ((0, 2, 16), torch.int32)
    out, lse = flashinfer_msa.sparse_attention(q, k, k, chosen[:, :1], **lengths, scale=1.0)
    assert (out.shape, out.dtype) == ((0, 2, 128), torch.bfloat16)
    assert (lse.shape, lse.dtype) == ((0, 2), torch.float32)
    assert fake.record.calls == []
