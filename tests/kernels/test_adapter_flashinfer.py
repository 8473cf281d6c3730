"""The adapter of FlashInfer's MSA kernels, against a fake of their documented interface."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import sys
from importlib.machinery import ModuleSpec

import pytest
import torch
from adapting import case, first_failure, results
from fake_flashinfer import Fake

import msa_kernels
from msa.packing import cumulative
from msa_kernels.adapters import converting, flashinfer_msa, flashinfer_scores

#: Chunks at the end of a cache, beside short sequences and one without queries; 19 blocks > 16.
RAGGED = case("fi-ragged", [24, 40, 1, 0], [130, 2330, 2177, 5])
#: Every block fits into the selection; one head a group; forced at both ends.
SIXTEEN = case(
    "fi-sixteen", [20, 5], [2040, 300], (2, 2), dtype="float16", sink_blocks=1, local_blocks=2
)
DRAFTS = case("fi-drafts", [3, 3], [2310, 3], sink_blocks=2)
DECODE = case("fi-decode", [1, 1], [2180, 300], (16, 1))


@pytest.fixture
def fake(monkeypatch):
    return Fake((12, 0)).into(monkeypatch)


@pytest.fixture
def old(monkeypatch):
    """A device of compute capability 10.0."""
    return Fake((10, 0)).into(monkeypatch)


def outcomes(cases):
    """Names of the checks that passed; none may fail."""
    done = list(results(flashinfer_msa, cases))
    assert [f"{r.case}: {r.detail}" for r in done if r.status == "failed"] == []
    return {r.check for r in done if r.status == "passed"}


class TestConformance:
    @pytest.mark.slow
    @pytest.mark.usefixtures("fake")
    def test_everything_on_12(self):
        done = outcomes([RAGGED, SIXTEEN, DRAFTS, DECODE])
        assert {"scores", "scores_own_keys", "selection", "selection_ties", "attention",
                "attention_lse", "attention_permuted", "attention_empty_rows",
                "attention_everything", "decode", "decode_lse", "decode_empty_rows",
                "paged_scores", "paged_scores_own_keys", "attend_paged", "pipeline",
                "keep_everything", "chunked_prefill", "lowest_local", "scales",
                "gaps"} <= done  # fmt: skip
        assert "selection_nan" not in done

    @pytest.mark.usefixtures("old")
    def test_without_scores_on_10(self):
        done = outcomes([RAGGED, DRAFTS])
        assert {"selection", "selection_ties", "selection_lowest_local", "attention_lse",
                "decode_lse"} <= done  # fmt: skip
        assert not {"scores", "paged_scores", "pipeline", "attend_paged"} & done


class TestOperations:
    """A device that scores no blocks has no operation that begins with it."""

    OTHERS = ("select_blocks", "sparse_attention", "sparse_decode")

    @pytest.mark.usefixtures("fake")
    def test_on_12(self):
        scoring = ("block_scores", "paged_block_scores")
        whole = ("attend", "attend_paged")
        assert msa_kernels.operations(flashinfer_msa) == (*scoring, *self.OTHERS, *whole)
        assert flashinfer_msa.attend is flashinfer_scores.attend

    @pytest.mark.usefixtures("old")
    def test_on_10(self):
        assert msa_kernels.operations(flashinfer_msa) == self.OTHERS
        for name in ("block_scores", "paged_block_scores", "attend", "attend_paged"):
            with pytest.raises(AttributeError, match=rf"^{name}: wanted .* 12\.x, got 10\.0"):
                getattr(flashinfer_msa, name)

    def test_without_a_device(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert msa_kernels.operations(flashinfer_msa) == self.OTHERS

    def test_what_it_never_had(self):
        with pytest.raises(AttributeError, match="has no attribute 'combine'"):
            _ = flashinfer_msa.combine


def drawn(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def changed(monkeypatch, name, *dropped, result=lambda x: x):
    """Call a foreign function without some keywords, or change its result."""
    ops = sys.modules["flashinfer.msa_ops"]
    right = getattr(ops, name)

    def wrong(*args, **kwargs):
        return result(right(*args, **{k: v for k, v in kwargs.items() if k not in dropped}))

    monkeypatch.setattr(ops, name, wrong)


@pytest.mark.usefixtures("fake")
class TestTeeth:
    """What the suite or the fake says of an adapter with one mistake."""

    @pytest.mark.parametrize(
        ("where", "name", "mistake", "words"),
        [
            (converting, "ascending", lambda ids: ids.int(), "must be sorted ascending"),
            (converting, "heads_first", lambda ids: ids.contiguous(), "q2k_indices must be"),
            (flashinfer_msa, "blocks_first", lambda x: x.contiguous(), "num_valid_pages must be"),
            (converting, "above_zero", lambda _: 1.0, "scores: maximum error"),
        ],
        ids=["ids not sorted", "ids not by heads", "scores not by blocks", "index scale forgotten"],
    )
    def test_a_conversion_left_out(self, monkeypatch, where, name, mistake, words):
        monkeypatch.setattr(where, name, mistake)
        assert words in first_failure(flashinfer_msa, [DRAFTS])

    @pytest.mark.parametrize(
        ("function", "dropped", "words"),
        [
            ("msa_sparse_attention", "causal", "attention: output"),
            ("msa_sparse_attention", "softmax_scale", "scales: sparse_attention"),
            ("msa_topk_select", "force_end_blocks", "the local block is missing"),
            ("msa_topk_select", "force_begin_blocks", "a forced block is missing"),
            ("msa_topk_select", "num_valid_pages", "a block of the future"),
            ("msa_sparse_decode_attention", "seqlen_q", "page_table must be"),
        ],
    )
    def test_an_argument_left_out(self, monkeypatch, function, dropped, words):
        changed(monkeypatch, function, dropped)
        assert words in first_failure(flashinfer_msa, [DRAFTS])

    @pytest.mark.parametrize(
        ("function", "words"),
        [("msa_sparse_attention", "attention_lse"), ("msa_sparse_decode_attention", "decode")],
    )
    def test_lse_in_another_base(self, monkeypatch, function, words):
        changed(monkeypatch, function, result=lambda x: (x[0], x[1] / math.log(2)))
        assert f"{words}: lse" in first_failure(flashinfer_msa, [DRAFTS])

    @pytest.mark.parametrize(
        ("name", "mistake", "words"),
        [
            ("without_hidden", lambda ids, *_: converting.ascending(ids), "a block of the future"),
            ("with_forced", lambda scores, *_, **__: scores, "block is missing"),
        ],
    )
    def test_a_correction_for_10_left_out(self, monkeypatch, name, mistake, words):
        Fake((10, 0)).into(monkeypatch)
        monkeypatch.setattr(converting, name, mistake)
        assert words in first_failure(flashinfer_msa, [DRAFTS])


class TestUnavailable:
    @pytest.fixture
    def machine(self, monkeypatch):
        def make(*, package=True, device=(12, 0), version="0.7.2.post1"):
            found = ModuleSpec("flashinfer", None, origin="flashinfer") if package else None
            monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
            monkeypatch.setattr(torch.cuda, "is_available", lambda: device is not None)
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: device)

            def installed(name):
                assert name == "flashinfer-python"
                if version is None:
                    raise importlib.metadata.PackageNotFoundError(name)
                return version

            monkeypatch.setattr(importlib.metadata, "version", installed)
            return flashinfer_msa.unavailable()

        return make

    @pytest.mark.parametrize("device", [(10, 0), (10, 3), (12, 0), (12, 1)])
    def test_where_it_runs(self, machine, device):
        assert machine(device=device) is None
        assert machine(device=device, version="0.8.0rc1") is None

    @pytest.mark.parametrize(
        ("lacking", "words"),
        [
            ({"package": False}, "wanted the package flashinfer, got none"),
            ({"device": None}, "wanted a CUDA device of compute capability 10.x or 12.x, got none"),
            ({"device": (9, 0)}, "capability 10.x or 12.x, got 9.0"),
            ({"device": (10, 7)}, "capability 10.0, 10.3, 12.0, 12.1, got 10.7"),
            ({"version": "0.6.18.post1"}, "flashinfer-python 0.7.2 or newer, got 0.6.18.post1"),
            ({"version": None}, "flashinfer-python 0.7.2 or newer, got none"),
        ],
    )
    def test_what_is_lacking(self, machine, lacking, words):
        assert words in machine(**lacking)


LENGTHS = {"cu_q": cumulative([2]), "cu_k": cumulative([130]), "block": 128}


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"heads": 3}, r"^q: wanted 1, 2, 4, 8, 16 heads per group, got 3"),
            ({"width": 64}, r"^q: wanted a width of 128, got bfloat16 \[2, 2, 64\]"),
            ({"dtype": torch.float32}, r"^q: wanted float16 or bfloat16, got float32"),
            ({"slots": 17}, r"^selection: wanted at most 16 slots, got 17"),
            ({"block": 64}, r"^block: wanted 128, all that it is built for, got 64"),
            ({"kv": torch.float8_e4m3fn}, r"^k: wanted bfloat16 \[Tk, Hkv, 128\], got float8"),
        ],
    )
    def test_attention(self, fake, change, message):
        given = {"heads": 2, "width": 128, "dtype": torch.bfloat16, "slots": 3, "block": 128}
        given |= {"kv": change.get("dtype", torch.bfloat16), **change}
        q = drawn(2, given["heads"], given["width"], dtype=given["dtype"])
        k = drawn(130, 1, given["width"], dtype=given["kv"])
        ids = torch.zeros(2, 1, given["slots"], dtype=torch.int32)
        lengths = {**LENGTHS, "block": given["block"]}
        with pytest.raises((TypeError, ValueError), match=message):
            flashinfer_msa.sparse_attention(q, k, k, ids, **lengths, scale=1.0)
        assert fake.record.calls == []

    @pytest.mark.parametrize("kv", [torch.float8_e4m3fn, torch.bfloat16])
    def test_decode(self, kv):
        q, pages = drawn(1, 1, 2, 128), drawn(2, 1, 128 if kv.itemsize == 1 else 64, 128).to(kv)
        pages_of = {"page_table": torch.zeros(1, 1, dtype=torch.int32)}
        pages_of |= {"k_lens": torch.ones(1, dtype=torch.int32), "scale": 1.0}
        ids = torch.zeros(1, 1, 1, 16, dtype=torch.int32)
        message = r"^k_pages: wanted float16 or b" if kv.itemsize == 1 else r"^block: wanted 128"
        with pytest.raises((TypeError, ValueError), match=message):
            flashinfer_msa.sparse_decode(q, pages, pages, ids, **pages_of)

    def test_another_budget(self):
        with pytest.raises(ValueError, match=r"^topk: wanted 16, all .* got 8"):
            flashinfer_msa.select_blocks(torch.zeros(2, 1, 2), **LENGTHS, topk=8)

    @pytest.mark.parametrize("scale", [0.0, -0.5, math.inf, math.nan])
    def test_a_scale_that_makes_no_maximum(self, scale):
        q, k = drawn(2, 1, 128), drawn(130, 1, 128)
        with pytest.raises(ValueError, match=r"^scale: wanted a finite number above 0, .* got"):
            flashinfer_scores.block_scores(q, k, **LENGTHS, scale=scale)
