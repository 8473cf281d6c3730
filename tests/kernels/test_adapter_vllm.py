"""The adapter of vLLM's kernels, against a fake of their interface."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.machinery import ModuleSpec

import pytest
import torch
from adapting import case, first_failure, results
from fake_vllm import FUNCTIONS, NAME, installed

from msa import reference
from msa.packing import cumulative
from msa_kernels.adapters import converting, vllm_msa, vllm_scores
from msa_suites.correctness.run import FAILED, PASSED

pytestmark = pytest.mark.whole

#: A chunk at the end of a cache, a sequence without queries, two blocks and a bit, one query.
RAGGED = case("ragged", [9, 0, 130, 1], [400, 40, 130, 300], topk=3)
FORCED = case(
    *("forced", [7], [641]), heads=(6, 2), topk=4, local_blocks=2, sink_blocks=1, dtype="float16"
)
DECODE = case("decode", [1] * 3, [700, 65, 321], heads=(16, 1), topk=3)
#: Three groups are no power of two.
DRAFTS = case("drafts", [3] * 2, [500, 131], heads=(3, 3), topk=2)
LENGTHS = {"cu_q": cumulative([3, 2]), "cu_k": cumulative([300, 100])}
TABLE = torch.tensor([[3, 1, 7, 99], [5, 99, 99, 99]], dtype=torch.int32)
K_LENS = torch.tensor([300, 100], dtype=torch.int32)


@pytest.fixture
def fake(monkeypatch):
    return installed(monkeypatch)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).bfloat16()


class TestConformance:
    def test_everything_within_the_capabilities_passes(self, fake):
        done = list(results(vllm_msa, [RAGGED, FORCED, DECODE, DRAFTS]))
        assert [r.detail for r in done if r.status == FAILED] == []
        assert {name for name, _ in fake.record.calls} == set(FUNCTIONS)
        assert {r.check for r in done if r.status == PASSED} >= {
            *("scores", "scores_own_keys", "selection", "selection_ties", "selection_lowest_local"),
            *("attention", "attention_permuted", "attention_empty_rows", "attention_everything"),
            *("attention_unread_nan", "decode", "decode_empty_rows", "decode_permuted"),
            *("paged_scores", "paged_scores_own_keys", "pipeline", "keep_everything"),
            *("batch_equals_singles", "chunked_prefill", "fresh_outputs", "scales", "gaps"),
        }

    @pytest.mark.usefixtures("fake")
    def test_holes_and_blocks_of_the_future_in_a_selection(self):
        """Its kernels read as many entries as a query sees blocks; these stand before those."""
        q, k, v = drawn(5, 4, 128), drawn(400, 2, 128), drawn(400, 2, 128) + 1
        ids = [[[-1, 2, -1, 0], [7, 5, 1, -1]], [[2, 1, 0, -1], [-1, -1, -1, 5]]]
        selection = torch.tensor(ids, dtype=torch.int32)[[0, 1, 0, 1, 1]]
        given = {"block": 128, "scale": 0.1, **LENGTHS}
        out, _ = vllm_msa.sparse_attention(q, k, v, selection, **given)
        right, _ = reference.sparse_attention(q, k, v, selection, **given)
        assert float((out - right).abs().max()) < 1e-2
        paged = torch.stack([drawn(8, 2, 128, 128), drawn(8, 2, 128, 128) + 1])
        chosen = selection[[0, 1, 3, 4]].unflatten(0, (2, 2))
        given = {"page_table": TABLE, "k_lens": K_LENS, "scale": 0.1}
        out, _ = vllm_msa.sparse_decode(q[:4].unflatten(0, (2, 2)), *paged, chosen, **given)
        right, _ = reference.sparse_decode(q[:4].unflatten(0, (2, 2)), *paged, chosen, **given)
        assert float((out - right).abs().max()) < 1e-2


class TestArguments:
    """Every argument of every foreign call, one by one."""

    def test_scores(self, fake):
        q, k = drawn(5, 2, 128), drawn(400, 1, 128)
        vllm_msa.block_scores(q, k, block=128, scale=0.3, **LENGTHS)
        (call,) = fake.record.of("minimax_m3_index_score")
        assert torch.equal(call.idx_q, q)
        assert call.index_kv_cache.shape == (4, 128, 128)
        assert torch.equal(call.index_kv_cache[:3].flatten(0, 1)[:300], k[:300, 0])
        assert torch.equal(call.index_kv_cache[3, :100], k[300:, 0])
        assert call.block_table.tolist() == [[0, 1, 2], [3, 0, 0]]
        assert call.block_table.dtype == call.seq_lens.dtype == torch.int32
        assert torch.equal(call.cu_seqlens_q, LENGTHS["cu_q"])
        assert (call.seq_lens.tolist(), call.prefix_lens.tolist()) == ([300, 100], [297, 98])
        assert (call.max_query_len, call.max_seq_len, call.num_kv_heads) == (3, 300, 2)

    def test_scores_of_own_keys(self, fake):
        q, k = drawn(5, 2, 128), drawn(400, 2, 128)
        vllm_msa.block_scores(q, k, block=128, scale=0.3, **LENGTHS)
        for g, call in enumerate(fake.record.of("minimax_m3_index_score")):
            assert torch.equal(call.idx_q, q[:, g : g + 1])
            assert torch.equal(call.index_kv_cache[3, :100], k[300:, g])
            assert call.num_kv_heads == 1

    def test_scores_of_a_cache(self, fake):
        q, pages = drawn(2, 3, 2, 128), drawn(8, 1, 128, 128)
        vllm_msa.paged_block_scores(q, pages, page_table=TABLE, k_lens=K_LENS, scale=0.3)
        (call,) = fake.record.of("minimax_m3_index_decode_score")
        assert torch.equal(call.idx_q, q.flatten(0, 1))
        assert torch.equal(call.index_kv_cache, pages[:, 0])
        assert call.index_kv_cache.data_ptr() == pages.data_ptr(), "no copy"
        assert torch.equal(call.block_table, TABLE)
        assert torch.equal(call.seq_lens, K_LENS)
        assert (call.max_seq_len, call.num_kv_heads) == (512, 2)
        assert (call.init_blocks, call.local_blocks) == (0, 0)
        assert (call.decode_query_len, call.max_decode_query_len) == (3, 3)
        assert call.score_out is None

    def test_selection(self, fake):
        scores = drawn(5, 2, 3).float()
        got = vllm_msa.select_blocks(scores, block=128, topk=2, sink_blocks=1, **LENGTHS)
        (call,) = fake.record.of("minimax_m3_index_topk")
        assert torch.equal(call.score, scores.transpose(0, 1))
        assert torch.equal(call.cu_seqlens_q, LENGTHS["cu_q"])
        assert call.prefix_lens.tolist() == [297, 98]
        assert (call.max_query_len, call.topk, call.out) == (3, 2, None)
        assert (call.init_blocks, call.local_blocks) == (1, 1)
        assert got.tolist() == [[[0, 2]] * 2] * 3 + [[[0, -1]] * 2] * 2

    def test_attention(self, fake):
        q, k, v = drawn(5, 4, 128), drawn(400, 2, 128), drawn(400, 2, 128) + 1
        rows = torch.tensor([[2, 0, -1], [1, -1, -1]], dtype=torch.int32).expand(5, 2, 3).clone()
        rows[3:, 1] = -1
        out, lse = vllm_msa.sparse_attention(q, k, v, rows, block=128, scale=1, **LENGTHS)
        (call,) = fake.record.of("minimax_m3_sparse_attn")
        assert torch.equal(call.q, q)
        assert call.kv_cache.shape == (4, 2, 128, 256)
        assert torch.equal(call.kv_cache[3, :, :100, :128], k[300:].transpose(0, 1))
        assert torch.equal(call.kv_cache[3, :, :100, 128:], v[300:].transpose(0, 1))
        # Ascending, and 3 for an empty entry: the column behind the three blocks.
        assert call.topk_idx[0].tolist() == [[0, 2, 3]] * 3 + [[0, 3, 3]] * 2
        assert call.topk_idx[1].tolist() == [[1, 3, 3]] * 3 + [[3, 3, 3]] * 2
        assert call.topk_idx.dtype == torch.int32
        assert call.block_table.tolist() == [[0, 1, 2, 0], [3, 0, 0, 0]]
        assert torch.equal(call.cu_seqlens_q, LENGTHS["cu_q"])
        assert (call.seq_lens.tolist(), call.prefix_lens.tolist()) == ([300, 100], [297, 98])
        assert (call.max_query_len, call.num_kv_heads) == (3, 2)
        assert (call.sm_scale, type(call.sm_scale)) == (1.0, float)
        assert call.k_scale is call.v_scale is None
        assert call.output is out
        assert lse is None
        assert not bool(out[3:, 2:].any())

    def test_decoding(self, fake):
        q, pages = drawn(2, 2, 4, 128), drawn(8, 2, 128, 128)
        chosen = torch.tensor([2, 0, -1], dtype=torch.int32).expand(2, 2, 2, 3)
        given = {"page_table": TABLE, "k_lens": K_LENS, "scale": 0.2}
        out, _ = vllm_msa.sparse_decode(q, pages, pages + 1, chosen, **given)
        (call,) = fake.record.of("minimax_m3_sparse_attn_decode")
        assert torch.equal(call.q, q.flatten(0, 1))
        assert torch.equal(call.kv_cache, torch.cat([pages, pages + 1], -1))
        assert call.topk_idx.tolist() == [[[0, 2, -1]] * 2 + [[0, -1, -1]] * 2] * 2
        assert torch.equal(call.block_table, TABLE)
        assert torch.equal(call.seq_lens, K_LENS)
        assert (call.num_kv_heads, call.sm_scale, call.decode_query_len) == (2, 0.2, 2)
        assert call.k_scale is call.v_scale is None
        assert call.output.data_ptr() == out.data_ptr()


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (converting, "local_blocks_of", lambda cu_q, *_: torch.full((int(cu_q[-1]),), 99)),
        (converting, "lengths", lambda cu: cu[1:]),
        (vllm_msa, "_zeroed", lambda out, _: out),
        (vllm_scores, "_visible", lambda raw, _q, _k, n, _s: raw[..., :n].transpose(0, 1)),
    ],
)
@pytest.mark.usefixtures("fake")
def test_a_wrong_conversion_is_seen(monkeypatch, where, name, wrong):
    monkeypatch.setattr(where, name, wrong)
    assert first_failure(vllm_msa, [RAGGED])


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("local_blocks", lambda n: 1 - min(n, 1)),
        ("init_blocks", lambda n: 1 - n),
        ("sm_scale", lambda _: 1.0),
        ("prefix_lens", torch.zeros_like),
        ("kv_cache", lambda cache: cache.roll(128, -1)),
        ("topk_idx", lambda ids: ids.clamp_max(ids.max() - 1)),
        ("topk_idx", lambda ids: ids.flip(0)),
        ("score", lambda x: x.flip(0)),
        ("index_kv_cache", lambda x: x.flip(1)),
        ("block_table", lambda x: x[:, :-1].contiguous()),
    ],
)
@pytest.mark.usefixtures("fake")
def test_a_wrong_argument_is_seen(monkeypatch, argument, wrong):
    """What the adapter passes is changed on the way."""
    module = sys.modules[NAME]
    for name in FUNCTIONS:
        right = getattr(module, name)

        def changed(*, _right=right, **more):
            return _right(**(more | {x: wrong(more[x]) for x in [argument] if x in more}))

        monkeypatch.setattr(module, name, changed)
    assert first_failure(vllm_msa, [FORCED])


class TestRefusals:
    def test_by_name(self):
        q, k, v, ids = drawn(5, 4, 128), *drawn(2, 400, 2, 128), torch.zeros(5, 2, 4).int()
        given = {"block": 128, "scale": 1.0, **LENGTHS}
        with pytest.raises(ValueError, match=r"^block: wanted 128, .* got 64"):
            vllm_msa.sparse_attention(q, k, v, ids, **(given | {"block": 64}))
        with pytest.raises(ValueError, match=r"^q: wanted a width of 128, got .*64\]"):
            vllm_msa.sparse_attention(*(x[..., :64] for x in (q, k, v)), ids, **given)
        with pytest.raises(TypeError, match=r"^q: wanted float16 or bfloat16, got float32"):
            vllm_msa.sparse_attention(*(x.float() for x in (q, k, v)), ids, **given)
        with pytest.raises(TypeError, match=r"^k: wanted bfloat16 .* got float8_e4m3fn"):
            vllm_msa.sparse_attention(q, *(x.to(torch.float8_e4m3fn) for x in (k, v)), ids, **given)
        with pytest.raises(ValueError, match=r"^scale: wanted a finite number above 0, .* got -1"):
            vllm_msa.block_scores(q[:, :2], k[:, :1], **(given | {"scale": -1.0}))
        with pytest.raises(ValueError, match=r"^topk: wanted at most 1024, got 1025"):
            vllm_msa.select_blocks(torch.zeros(5, 2, 3), block=128, topk=1025, **LENGTHS)

    def test_more_elements_than_32_bits_count(self):
        many = 2**23
        x, ids = drawn(1, 2, 128).expand(many, 2, 128), torch.zeros(1, 2, 1).int()
        given = {"block": 128, "scale": 1.0, "cu_q": cumulative([many]), "cu_k": cumulative([many])}
        with pytest.raises(ValueError, match=r"^q: wanted less than 2\*\*31 elements, got 2147483"):
            vllm_msa.sparse_attention(x, x, x, ids.expand(many, 2, 1), **given)
        with pytest.raises(ValueError, match=r"^scores: wanted less than 2\*\*31 elements"):
            vllm_msa.block_scores(x, x[:, :1], **given)

    def test_why_it_cannot_run_here(self, monkeypatch):
        def there(capability, version):
            found = ModuleSpec("vllm", None, origin="there")
            monkeypatch.setattr(converting.importlib.util, "find_spec", lambda _: found)
            monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
            monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
            return vllm_msa.unavailable()

        monkeypatch.setattr(converting.importlib.util, "find_spec", lambda _: None)
        assert vllm_msa.unavailable() == "wanted the package vllm, got none"
        majors = "wanted a CUDA device of compute capability 8.x or 9.x or 10.x or 12.x"
        assert there(None, "0.33.0") == f"{majors}, got none"
        assert there((7, 5), "0.33.0") == f"{majors}, got 7.5"
        assert there((9, 0), "0.32.1") == "wanted vllm 0.33 or newer, got 0.32.1"
        for device in ((8, 0), (8, 9), (9, 0), (10, 3), (12, 0)):
            assert there(device, "0.33.0+cu129") is None
        assert there((9, 0), "1.0.0rc1") is None
