"""The adapter of MiniMax's newer kernels, against a fake of their documented interface."""

from __future__ import annotations

import functools
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
import torch
from adapting import case, first_failure, install, results
from fake_msa_v1 import DECODE, PREFILL, Decode, DecodeIndexer, Fake, Prefill, PrefillIndexer

import msa_kernels
from msa.packing import cumulative
from msa_kernels.adapters import converting, msa_v1
from msa_suites.correctness.run import FAILED, PASSED

pytestmark = pytest.mark.whole

#: A chunk at the end of a cache, beside a short sequence whose queries stand in two blocks.
RAGGED = case("ragged", [3, 4], [2180, 130], heads=(8, 1))
DECODING = case("decode", [1], [2190], heads=(16, 1))
#: The first draft of the first request stands in another block than the second.
DRAFTS = case("drafts", [2, 2], [2049, 130], heads=(16, 2))
CASES = [DRAFTS, RAGGED, DECODING]
CU = {"cu_q": cumulative([6, 3]), "cu_k": cumulative([300, 130])}
SETTINGS = {"topk": 16, "scale": 0.2, "index_scale": 0.3}


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    for name, members in made.modules.items():
        install(monkeypatch, name, **members)
    return made


class TestConformance:
    def test_everything_within_the_capabilities_passes(self, fake):
        found = list(results(msa_v1, CASES))
        assert [r.detail for r in found if r.status == FAILED] == []
        kinds = (PrefillIndexer, Prefill, DecodeIndexer, Decode)
        steps = {f"{kind.__name__}.{step}" for kind in kinds for step in ("plan", "run")}
        assert {name for name, _ in fake.record.calls} == steps
        assert {r.check for r in found if r.status == PASSED} >= {
            "pipeline",
            "chunked_prefill",
            "decode_equals_row",
            "groups_independent",
            "lowest_local",
            "negative",
            "ties",
            "attend_paged",
            "attend_paged_ties",
            "attend_paged_lowest_local",
            "fresh_outputs",
            "scales",
            "gaps",
        }

    @pytest.mark.usefixtures("fake")
    def test_queries_there_are_none_of(self):
        q, k, v, q_idx, k_idx = packed(rows=0)
        lens = {"cu_q": cumulative([0, 0]), "cu_k": CU["cu_k"]}
        out, chosen = msa_v1.attend(q, k, v, q_idx, k_idx, **lens, block=128, **SETTINGS)
        assert (out.shape, chosen.shape, chosen.dtype) == (q.shape, (0, 2, 16), torch.int32)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


def packed(rows=9, keys=430, heads=16, groups=2):
    q, k, v = drawn(rows, heads, 128), drawn(keys, groups, 128), drawn(keys, groups, 128) + 1
    return q, k, v, drawn(rows, groups, 128), drawn(keys, 1, 128)


def paged(queries=3, heads=16, groups=2):
    """Tensors and tables of two requests over seven pages."""
    pages = drawn(7, groups, 128, 128)
    tensors = drawn(2, queries, heads, 128), drawn(2, queries, groups, 128), pages, pages + 1
    table = torch.tensor([[3, 1, 6], [5, 2, 0]], dtype=torch.int32)
    lens = torch.tensor([300, 129], dtype=torch.int32)
    return (*tensors, drawn(7, 1, 128, 128)), {"page_table": table, "k_lens": lens}


class TestArguments:
    """Every argument of every foreign call, one by one."""

    def test_prefill(self, fake):
        q, k, v, q_idx, k_idx = packed()
        out, chosen = msa_v1.attend(q, k, v, q_idx, k_idx, **CU, block=128, **SETTINGS)
        (plan,), (run,) = (fake.record.of(f"PrefillIndexer.{x}") for x in ("plan", "run"))
        assert torch.equal(plan.cu_seqlens_q, CU["cu_q"])
        assert torch.equal(plan.cu_seqlens_k, CU["cu_k"])
        assert plan.page_table.tolist() == [[0, 1, 2], [3, 4, 0]]
        assert (plan.total_q, plan.max_seqlen_q, plan.max_seqlen_k) == (9, 6, 300)
        assert plan.num_index_heads == 2
        assert torch.equal(run.q, q_idx)
        assert run.paged_k_cache.shape == (5, 1, 128, 128)
        assert torch.equal(run.paged_k_cache[4, 0, :2], k_idx[428:, 0])
        assert run.out is None

        (plan,), (run,) = (fake.record.of(f"Prefill.{x}") for x in ("plan", "run"))
        assert plan.topk_indices.shape == (2, 9, 16)
        assert plan.topk_indices[1, 0].tolist() == [1, 0, 2] + [-1] * 13
        assert plan.topk_indices[0, 6].tolist() == [0] + [-1] * 15, "it stands at 127"
        assert torch.equal(plan.cu_seqlens_q, CU["cu_q"])
        assert torch.equal(plan.cu_seqlens_k, CU["cu_k"])
        assert plan.page_table.tolist() == [[0, 1, 2], [3, 4, 0]]
        assert (plan.num_q_heads, plan.num_kv_heads) == (16, 2)
        assert (plan.total_k, plan.total_rows) == (430, 5)
        assert (plan.max_seqlen_q, plan.max_seqlen_k) == (6, 300)
        assert plan.causal is True
        assert plan.sm_scale == 0.2
        assert torch.equal(run.q, q)
        for pages, x in zip(run.paged_kv_cache, (k, v), strict=True):
            assert pages.shape == (5, 2, 128, 128)
            assert torch.equal(pages[2, :, :44], x[256:300].transpose(0, 1))
        assert run.out is run.lse is None
        assert run.return_lse is False
        assert out.shape == q.shape
        assert torch.equal(chosen, plan.topk_indices.transpose(0, 1))

    def test_decode(self, fake):
        (q, q_idx, k, v, index), where = paged()
        out, chosen = msa_v1.attend_paged(q, q_idx, k, v, index, **where, **SETTINGS)
        (plan,), (run,) = (fake.record.of(f"DecodeIndexer.{x}") for x in ("plan", "run"))
        assert torch.equal(plan.page_table, where["page_table"])
        assert torch.equal(plan.seq_lens, where["k_lens"])
        assert (plan.num_index_heads, plan.query_length, plan.shared_plan) == (2, 3, None)
        assert torch.equal(run.q, q_idx)
        assert torch.equal(run.paged_k_cache, index[:, 0])
        assert run.out is None

        (plan,), (run,) = (fake.record.of(f"Decode.{x}") for x in ("plan", "run"))
        assert plan.topk_indices.shape == (6, 2, 16)
        assert plan.topk_indices[0, 1].tolist() == [1, 0, 2] + [-1] * 13
        assert plan.topk_indices[4, 0].tolist() == [0] + [-1] * 15, "it stands at 127"
        assert torch.equal(plan.page_table, where["page_table"])
        assert torch.equal(plan.seq_lens, where["k_lens"])
        assert (plan.q_len_per_req, plan.num_q_heads, plan.num_kv_heads) == (3, 16, 2)
        assert plan.sm_scale == 0.2
        assert torch.equal(run.q, q.flatten(0, 1))
        assert all(a is b for a, b in zip(run.paged_kv_cache, (k, v), strict=True)), "no copies"
        assert run.out is None
        assert out.shape == q.shape
        assert torch.equal(chosen.flatten(0, 1), plan.topk_indices)


def _pages_of_tokens_first(x, cu, page, right=converting.in_pages):
    pages, table = right(x, cu, page)
    return pages.transpose(1, 2).contiguous(), table


def _heads_and_tokens_mixed(x, cu, page, right=converting.in_pages):
    pages, table = right(x, cu, page)
    return pages.transpose(1, 2).reshape(pages.shape), table


def _pages_of_one_request(x, cu, page, right=converting.in_pages):
    pages, table = right(x, cu, page)
    return pages, table[:1].expand_as(table).contiguous()


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (converting, "in_pages", _pages_of_tokens_first),
        (converting, "in_pages", _heads_and_tokens_mixed),
        (converting, "in_pages", _pages_of_one_request),
        (converting, "longest", lambda _: 1),
        (msa_v1, "count_blocks", lambda n, _: n),
        (msa_v1, "_rows_first", lambda ids: ids),
        (msa_v1, "_rows_first", lambda ids: ids.reshape(ids.shape[1], ids.shape[0], -1)),
        (msa_v1, "_aligned", lambda x: x),
        (msa_v1, "_wrapper", functools.cache(lambda *of, right=msa_v1._wrapper: right(*of))),
    ],
)
@pytest.mark.usefixtures("fake")
def test_a_wrong_conversion_is_seen(monkeypatch, where, name, wrong):
    monkeypatch.setattr(where, name, wrong)
    assert first_failure(msa_v1, CASES)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("sm_scale", None),
        ("causal", False),
        ("total_q", 7),
        ("total_k", 7),
        ("total_rows", 7),
        ("max_seqlen_q", 7),
        ("max_seqlen_k", 7),
        ("num_q_heads", 64),
        ("num_kv_heads", 4),
        ("num_index_heads", 4),
        ("query_length", 8),
        ("q_len_per_req", 8),
    ],
)
@pytest.mark.usefixtures("fake")
def test_a_wrong_argument_is_seen(monkeypatch, argument, value):
    """What the adapter plans is changed on the way."""
    right = msa_v1._wrapper

    def wrong(*of):
        made = right(*of)

        def plan(*args, **more):
            return made.plan(*args, **({**more, argument: value} if argument in more else more))

        return SimpleNamespace(plan=plan, run=made.run)

    monkeypatch.setattr(msa_v1, "_wrapper", wrong)
    assert first_failure(msa_v1, CASES)


class TestTheFake:
    """It refuses what would be read wrongly."""

    def test_a_run_before_its_plan(self, fake):
        for members in fake.modules.values():
            (make,) = members.values()
            with pytest.raises(RuntimeError, match=r"^plan\(\) must be called before run"):
                make().run(drawn(1, 8, 128), (drawn(1, 1, 128, 128),) * 2)

    @pytest.mark.parametrize(
        ("ids", "why"),
        [
            ([0, 2, 1], "own block is not the last"),
            ([0, 2], "fewer blocks"),
            ([0, 1, 2, 1], "more blocks"),
            ([1, 1, 2], "twice"),
            ([0, 3, 2], "future"),
        ],
    )
    def test_a_selection_of_another_form(self, fake, ids, why):
        row = torch.tensor(ids + [-1] * (16 - len(ids)), dtype=torch.int32)[None, None]
        make = fake.modules["inference.msa_v1.attention.decode.bf16"][DECODE]
        table, lens = torch.zeros(1, 4, dtype=torch.int32), torch.tensor([300], dtype=torch.int32)
        given = {"num_q_heads": 8, "num_kv_heads": 1}
        with pytest.raises(AssertionError, match=why):
            make().plan(row, table, lens, q_len_per_req=1, **given)
        make = fake.modules["inference.msa_v1.attention.prefill.bf16"][PREFILL]
        given |= {"total_k": 300, "total_rows": 3, "max_seqlen_q": 1, "max_seqlen_k": 300}
        with pytest.raises(AssertionError, match=why):
            make().plan(row, cumulative([1]), cumulative([300]), table, **given)


@pytest.mark.usefixtures("fake")
class TestRefusals:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"block": 64}, r"^block: wanted 128, all that it is built for, got 64"),
            ({"topk": 8}, r"^topk: wanted 16, all that it is built for, got 8"),
            ({"local_blocks": 2}, r"^local_blocks: wanted 1, .*, got 2"),
            ({"sink_blocks": 1}, r"^sink_blocks: wanted 0, .*, got 1"),
            ({"scale": 0.0}, r"^scale: wanted a finite number above 0, got 0.0"),
            ({"index_scale": -1.0}, r"^index_scale: wanted a finite number above 0, got -1.0"),
        ],
    )
    def test_settings(self, more, message):
        with pytest.raises(ValueError, match=message):
            msa_v1.attend(*packed(), **{**CU, "block": 128, **SETTINGS, **more})
        tensors, where = paged()
        if "block" in more:
            tensors = (*tensors[:2], *(x[:, :, :64] for x in tensors[2:]))
            where["k_lens"] = where["k_lens"] // 2
            more = {}
        with pytest.raises(ValueError, match=message):
            msa_v1.attend_paged(*tensors, **{**where, **SETTINGS, **more})

    def test_sizes(self):
        given = {**CU, "block": 128, **SETTINGS}
        with pytest.raises(ValueError, match=r"^q_idx: wanted 1, 2, 4 heads, got 3"):
            msa_v1.attend(*packed(heads=24, groups=3), **given)
        with pytest.raises(ValueError, match=r"^q: wanted 8, 16 heads per group, got 4"):
            msa_v1.attend(*packed(heads=8), **given)
        with pytest.raises(ValueError, match=r"^q: wanted a width of 128, got .*64\]"):
            msa_v1.attend(*(x[..., :64] for x in packed()), **given)
        with pytest.raises(TypeError, match=r"^q: wanted bfloat16, got float16"):
            msa_v1.attend(*(x.half() for x in packed()), **given)
        q, k, v, q_idx, _ = packed()
        with pytest.raises(ValueError, match=r"^k_idx: wanted 1 head for all groups, got .*2, 128"):
            msa_v1.attend(q, k, v, q_idx, k, **given)
        with pytest.raises(TypeError, match=r"^q_idx: wanted bfloat16, got float32"):
            msa_v1.attend(q, k, v, q_idx.float(), k[:, :1].float(), **given)

    def test_sizes_of_a_cache(self):
        (q, q_idx, k, v, index), where = paged()
        with pytest.raises(ValueError, match=r"^index_pages: wanted 1 head for all groups"):
            msa_v1.attend_paged(q, q_idx, k, v, k, **where, **SETTINGS)
        eight = [x.to(torch.float8_e4m3fn) for x in (k, v, index)]
        with pytest.raises(TypeError, match=r"^k_pages: wanted bfloat16, got float8_e4m3fn"):
            msa_v1.attend_paged(q, q_idx, *eight[:2], index, **where, **SETTINGS)
        with pytest.raises(TypeError, match=r"^index_pages: wanted bfloat16, got float8_e4m3fn"):
            msa_v1.attend_paged(q, q_idx, k, v, eight[2], **where, **SETTINGS)
        tensors, _ = paged(heads=64)
        with pytest.raises(ValueError, match=r"^q: wanted 8, 16 heads per group, got 32"):
            msa_v1.attend_paged(*tensors, **where, **SETTINGS)
        tensors, _ = paged(queries=17)
        with pytest.raises(ValueError, match=r"^q: wanted at most 16 queries .* got 17"):
            msa_v1.attend_paged(*tensors, **where, **SETTINGS)
        where["page_table"] = torch.nn.functional.pad(where["page_table"], (0, 8190))
        with pytest.raises(
            ValueError, match=r"^page_table: wanted at most 8192 columns, got int32"
        ):
            msa_v1.attend_paged(q, q_idx, k, v, index, **where, **SETTINGS)

    def test_more_keys_than_its_indexer_takes(self):
        q, k, v, q_idx, k_idx = packed(rows=1, keys=1)
        many = 2**20 + 1
        k, v, k_idx = (x.expand(many, -1, -1) for x in (k, v, k_idx))
        lens = {"cu_q": cumulative([1]), "cu_k": cumulative([many])}
        with pytest.raises(ValueError, match=r"^cu_k: wanted at most 2\*\*20 keys .* got 1048577"):
            msa_v1.attend(q, k, v, q_idx, k_idx, **lens, block=128, **SETTINGS)


def test_what_lies_between_borders_is_moved():
    x = torch.arange(9, dtype=torch.int32)[1:]
    assert x.is_contiguous()
    assert msa_v1._aligned(x).data_ptr() % 16 == 0
    assert torch.equal(msa_v1._aligned(x), x)


def test_only_the_whole_is_offered():
    assert set(msa_kernels.operations(msa_v1)) == {"attend", "attend_paged"}
    assert msa_kernels.IMPLEMENTATIONS["msa_v1"] == msa_v1.__name__


def test_why_it_cannot_run_here(monkeypatch):
    def found(there):
        def find(name):
            assert name == "inference.msa_v1"
            if isinstance(there, Exception):
                raise there
            return there

        monkeypatch.setattr(converting.importlib.util, "find_spec", find)

    def on(capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        return msa_v1.unavailable()

    for missing in (None, ModuleNotFoundError("No module named 'inference'")):
        found(missing)
        assert on((10, 0)) == "wanted the package inference.msa_v1, got none"
    found(ModuleSpec("inference.msa_v1", None, origin="there"))
    assert on(None) == "wanted a CUDA device of compute capability 10.x, got none"
    assert on((9, 0)) == "wanted a CUDA device of compute capability 10.x, got 9.0"
    assert on((10, 7)) == "wanted a CUDA device of compute capability 10.0, 10.3, got 10.7"
    assert on((10, 0)) is on((10, 3)) is None
