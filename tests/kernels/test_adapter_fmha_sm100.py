"""The adapters of MiniMax's own kernels, against a fake of their documented interface."""

from __future__ import annotations

import sys

import pytest
import torch
from adapting import case, failures, first_failure, install, results
from fake_fmha_sm100 import Fake

from msa.packing import cumulative
from msa_kernels.adapters import converting, fmha_sm100, hub_msa
from msa_suites.correctness.run import FAILED, PASSED

pytestmark = pytest.mark.whole

#: A chunk at the end of a cache, beside a short sequence; 19 blocks are more than 16.
RAGGED = case("ragged", [30, 140], [2300, 140])
DECODE = case("decode", [1, 1], [2430, 300], heads=(16, 1))
DRAFTS = case("drafts", [2, 2], [2431, 2050])
CASES = [RAGGED, DECODE, DRAFTS]


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    names = ("fmha_sm100_plan", "fmha_sm100", "sparse_topk_select")
    both = ("build_k2q_csr", "sparse_atten_func")
    members = {name: getattr(made, name) for name in (*names, *both)}
    install(monkeypatch, "fmha_sm100", **members)
    hub = install(monkeypatch, "kernels_of_the_hub", **{name: members[name] for name in both})
    monkeypatch.setattr(hub_msa, "_kernel", lambda _folder: hub)
    return made


class TestConformance:
    def test_everything_within_the_capabilities_passes(self, fake):
        found = list(results(fmha_sm100, CASES))
        assert [r.detail for r in found if r.status == FAILED] == []
        assert {name for name, _ in fake.record.calls} == {
            "fmha_sm100_plan",
            "fmha_sm100",
            "sparse_topk_select",
            "build_k2q_csr",
            "sparse_atten_func",
        }
        assert {r.check for r in found if r.status == PASSED} >= {
            "scores",
            "selection",
            "selection_lowest_local",
            "attention",
            "attention_lse",
            "attention_empty_rows",
            "decode",
            "decode_permuted",
            "pipeline",
            "chunked_prefill",
        }

    def test_the_hub_kernel_attends_over_a_selection(self, fake):
        assert failures(hub_msa, CASES) == []
        assert {name for name, _ in fake.record.calls} == {"build_k2q_csr", "sparse_atten_func"}


def drawn(rows=40, keys=2400, heads=4, groups=2):
    draw = torch.Generator().manual_seed(1)

    def tensor(*shape):
        return torch.randn(*shape, generator=draw).bfloat16()

    return tensor(rows, heads, 128), tensor(keys, groups, 128), tensor(keys, groups, 128)


class TestArguments:
    """Every argument of every foreign call, one by one."""

    def test_scores(self, fake):
        q, k, _ = drawn()
        cu_q, cu_k = cumulative([40]), cumulative([2400])
        fmha_sm100.block_scores(q[:, :2], k[:, :1], cu_q=cu_q, cu_k=cu_k, block=128, scale=0.3)
        (plan,), (run,) = fake.record.of("fmha_sm100_plan"), fake.record.of("fmha_sm100")
        assert plan.qo_segment_lens.tolist() == [40]
        assert plan.kv_segment_lens.tolist() == [2400]
        assert (plan.num_qo_heads, plan.num_kv_heads, plan.page_size) == (2, 1, -1)
        assert plan.output_maxscore is True
        assert plan.causal is True
        assert plan.kv_block_num == -1
        assert plan.device == q.device
        assert torch.equal(run.q, q[:, :2])
        assert torch.equal(run.k, k[:, :1])
        assert run.v is run.k
        assert (run.output_o, run.output_maxscore) == (False, True)
        assert run.kv_indices is run.kv_block_indexes is None
        assert run.sm_scale is None, "its maxima are raw"

    def test_selection(self, fake):
        scores = torch.randn(40, 2, 19, generator=torch.Generator().manual_seed(2))
        cu_q, cu_k = cumulative([40]), cumulative([2400])
        got = fmha_sm100.select_blocks(
            scores, cu_q=cu_q, cu_k=cu_k, block=128, topk=16, sink_blocks=1
        )
        (call,) = fake.record.of("sparse_topk_select")
        assert call.max_score.shape == (2, 19, 40)
        assert call.topk == 16
        assert call.num_valid_pages == 19
        assert (call.force_begin_blocks, call.force_end_blocks) == (0, 0)
        # Query 0 is at 2360, in block 18, as are all: it and the first block are forced.
        assert bool((call.max_score[:, 18] == torch.inf).all())
        assert bool((call.max_score[:, 0] == torch.inf).all())
        assert torch.equal(call.max_score[:, 1:18], scores.permute(1, 2, 0)[:, 1:18])
        assert got.dtype == torch.int32
        assert got.shape == (40, 2, 16)

    def test_attention(self, fake):
        q, k, v = drawn()
        cu_q, cu_k = cumulative([40]), cumulative([2400])
        ids = torch.tensor([[5, 18, 0, -1, -1], [7, -1, -1, -1, -1]], dtype=torch.int32)
        selection = ids.expand(40, 2, 5).contiguous()
        fmha_sm100.sparse_attention(q, k, v, selection, cu_q=cu_q, cu_k=cu_k, block=128, scale=0.2)
        (lists,), (run,) = fake.record.of("build_k2q_csr"), fake.record.of("sparse_atten_func")
        assert lists.q2k_indices.shape == (2, 40, 8), "the next width after 5"
        assert lists.q2k_indices[0, 0].tolist() == [5, 18, 0, -1, -1, -1, -1, -1]
        assert lists.q2k_indices[1, 39].tolist() == [7] + [-1] * 7
        assert torch.equal(lists.cu_seqlens_q, cu_q)
        assert torch.equal(lists.cu_seqlens_k, cu_k)
        assert (lists.kv_block_size, lists.total_k, lists.total_rows) == (128, 2400, 19)
        assert (lists.max_seqlen_q, lists.max_seqlen_k, lists.qhead_per_kv) == (40, 2400, 2)
        assert lists.return_schedule is True
        assert all(torch.equal(a, b) for a, b in ((run.q, q), (run.k, k), (run.v, v)))
        assert (run.topK, run.blk_kv, run.max_seqlen_q, run.max_seqlen_k) == (8, 128, 40, 2400)
        assert run.causal is True
        assert run.return_softmax_lse is True
        assert run.softmax_scale == 0.2
        assert run.page_table is run.seqused_k is None
        assert run.partial_dtype is torch.bfloat16
        assert torch.equal(run.cu_seqlens_q, cu_q)
        assert torch.equal(run.cu_seqlens_k, cu_k)

    def test_decode(self, fake):
        q = drawn(rows=4)[0].unflatten(0, (2, 2))
        pages = torch.randn(9, 2, 128, 128).bfloat16()
        table = torch.tensor([[3, 1, 7], [5, 0, 0]], dtype=torch.int32)
        lens = torch.tensor([300, 100], dtype=torch.int32)
        chosen = torch.full((2, 2, 2, 16), -1, dtype=torch.int32)
        chosen[0, ..., :3], chosen[1, ..., 0] = torch.tensor([2, 0, 1], dtype=torch.int32), 0
        out, lse = fmha_sm100.sparse_decode(
            q, pages, pages, chosen, page_table=table, k_lens=lens, scale=0.1
        )
        (plan,), (run,) = fake.record.of("fmha_sm100_plan"), fake.record.of("fmha_sm100")
        assert plan.qo_segment_lens.tolist() == [2, 2]
        assert plan.kv_segment_lens.tolist() == [300, 100]
        assert (plan.num_qo_heads, plan.num_kv_heads) == (4, 2)
        assert (plan.page_size, plan.kv_block_num) == (128, 16)
        assert plan.causal is True
        assert plan.split_prefill_decode is False
        assert run.q.shape == (4, 4, 128)
        assert run.kv_indices.tolist() == [3, 1, 7, 5]
        assert run.kv_block_indexes[0, 0].tolist() == [0, 1, 2] + [-1] * 13
        assert run.sm_scale == 0.1
        assert (run.q_scale, run.k_scale, run.v_scale) == (None, None, None)
        assert (out.shape, lse) == (q.shape, None)

    def test_the_hub_is_asked_for_the_kernel_by_version(self, monkeypatch, tmp_path):
        asked = []
        install(
            monkeypatch,
            "kernels",
            get_kernel=lambda *args, **more: asked.append((args, more)),
            get_local_kernel=lambda *args: asked.append(args),
        )
        hub_msa._kernel.__wrapped__("")
        hub_msa._kernel.__wrapped__(str(tmp_path))
        trusted = {"version": 0, "trust_remote_code": ["MiniMaxAI/msa"]}
        assert asked == [(("MiniMaxAI/msa",), trusted), (tmp_path,)]


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (converting, "ascending", lambda ids: ids),
        (converting, "heads_first", lambda ids: ids.contiguous()),
        (converting, "with_forced", lambda scores, *_, **__: scores),
        (converting, "without_hidden", lambda ids, *_: ids),
        (converting, "flat_pages", lambda table, *_: table.flatten()),
    ],
)
@pytest.mark.usefixtures("fake")
def test_a_wrong_conversion_is_seen(monkeypatch, where, name, wrong):
    monkeypatch.setattr(where, name, wrong)
    assert first_failure(fmha_sm100, CASES)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("causal", False), ("softmax_scale", None), ("total_k", 7), ("sm_scale", None)],
)
@pytest.mark.usefixtures("fake")
def test_a_wrong_argument_is_seen(monkeypatch, argument, value):
    """What the adapter passes is changed on the way."""
    module = sys.modules["fmha_sm100"]
    for name in ("build_k2q_csr", "sparse_atten_func", "fmha_sm100"):
        right = getattr(module, name)

        def wrong(*args, _right=right, **more):
            return _right(*args, **({**more, argument: value} if argument in more else more))

        monkeypatch.setattr(module, name, wrong)
    assert first_failure(fmha_sm100, CASES)


class TestRefusals:
    @pytest.mark.usefixtures("fake")
    def test_other_sizes(self):
        q, k, v = drawn()
        lens = {"cu_q": cumulative([40]), "cu_k": cumulative([2400])}
        ids = torch.zeros(40, 2, 4, dtype=torch.int32)
        with pytest.raises(ValueError, match=r"^block: wanted 128"):
            fmha_sm100.sparse_attention(q, k, v, ids, block=64, scale=1.0, **lens)
        wide = torch.full((40, 2, 33), -1, dtype=torch.int32)
        with pytest.raises(ValueError, match=r"^selection: wanted at most 32 slots, got 33"):
            fmha_sm100.sparse_attention(q, k, v, wide, block=128, scale=1.0, **lens)
        narrow = [x[..., :64] for x in (q, k, v)]
        with pytest.raises(ValueError, match=r"wanted a head dim of 128, got 64"):
            fmha_sm100.sparse_attention(*narrow, ids, block=128, scale=1.0, **lens)
        scores = torch.zeros(40, 2, 19)
        with pytest.raises(ValueError, match=r"^topk: wanted 16, all that it is built for, got 8"):
            fmha_sm100.select_blocks(scores, block=128, topk=8, **lens)

    @pytest.mark.usefixtures("fake")
    @pytest.mark.parametrize("scale", [0.0, -1.0])
    def test_a_scale_that_makes_no_maximum(self, scale):
        q, k, _ = drawn()
        lens = {"cu_q": cumulative([40]), "cu_k": cumulative([2400])}
        with pytest.raises(ValueError, match=r"^scale: wanted a finite number above 0"):
            fmha_sm100.block_scores(q[:, :2], k[:, :1], block=128, scale=scale, **lens)

    def test_maxima_that_do_not_come(self, fake, monkeypatch):
        monkeypatch.setattr(fake.__class__, "_maxima", lambda *_: None)
        q, k, _ = drawn()
        lens = {"cu_q": cumulative([40]), "cu_k": cumulative([2400])}
        with pytest.raises(RuntimeError, match=r"writes at most 2\^31"):
            fmha_sm100.block_scores(q[:, :2], k[:, :1], block=128, scale=1.0, **lens)

    @pytest.mark.parametrize("adapter", [fmha_sm100, hub_msa])
    def test_why_it_cannot_run_here(self, adapter, monkeypatch):
        package = adapter.RUNS[0]
        monkeypatch.setattr(converting.importlib.util, "find_spec", lambda _: None)
        assert adapter.unavailable() == f"wanted the package {package}, got none"
        there = type("Spec", (), {"origin": "here"})()
        monkeypatch.setattr(converting.importlib.util, "find_spec", lambda _: there)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "compute capability 10.x, got none" in adapter.unavailable()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        assert adapter.unavailable().endswith("got 9.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (10, 0))
        assert adapter.unavailable() is None
