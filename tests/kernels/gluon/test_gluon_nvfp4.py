"""Caches in NVFP4: numbers, rows that nobody reads, mistakes in bytes and scales, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gluon_runs import RUNS, SM90, SM100, Batch, assert_right, paged, planted, simulated

from msa import nvfp4, reference
from msa_kernels.gluon_ops import (
    attention,
    decoding,
    kernel,
    launching,
    scoring,
    sm90_simulated,
    sm100_simulated,
)
from msa_kernels.gluon_ops.decoding import kernel as decoding_kernel
from msa_kernels.gluon_ops.scoring import kernel as scoring_kernel
from msa_kernels.gluon_ops.simulating import BoundsError

ARMS = pytest.mark.parametrize("arm", [SM100, SM90], ids=lambda arm: arm.name)
#: Lengths that no block divides, more blocks than a ring has slots, a request of one block.
ODD = Batch((5, 45, 1), (301, 45, 7), bits=4, own_keys=True)


@ARMS
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("wide_rows", [False, True], ids=["D64", "D128"])
def test_a_cache_is_read_as_the_reference_reads_it(monkeypatch, run, arm, wide_rows):
    """Scales differ by head, row and group; some are zero, and NaN in rows that nobody reads."""
    batch = replace(ODD, wide_rows=wide_rows, share=3)
    monkeypatch.setattr(decoding, "_PROGRAMS", 1)  # all pages of a query in one program
    monkeypatch.setattr(attention, "_HELD", 20 * batch.heads * batch.topk * batch.dim * 2)
    assert_right(*RUNS[run](arm, batch))


@ARMS
def test_a_scale_of_nan_in_rows_that_nobody_reads(arm):
    """Of packed keys: behind the last token that a query of a block sees, and between sequences."""
    generator = torch.Generator().manual_seed(3)
    wide = (torch.randn(84, 2, 64, generator=generator) for _ in range(3))
    (k, k_scales), (v, v_scales), (k_idx, index_scales) = map(nvfp4.quantize, wide)
    q, q_idx = (torch.randn(44, heads, 64, generator=generator).half() for heads in (4, 2))
    # The second sequence has keys and no queries.
    cu_q, cu_k = (torch.tensor(cu, dtype=torch.int32) for cu in ([0, 44, 44], [0, 44, 84]))
    packing = {"cu_q": cu_q, "cu_k": cu_k, "block": 32}
    chosen = torch.zeros(44, 2, 2, dtype=torch.int32)
    chosen[..., 1] = -1
    chosen[35, :, 1] = 1
    for scales, first in ((k_scales, 36), (v_scales, 36), (index_scales, 44)):
        scales[first:] = torch.nan
    settings = {**packing, "scale": 0.2, "k_descale": k_scales, "v_descale": v_scales}
    assert_right(
        attention.sparse_attention(arm, q, k, v, chosen, **settings),
        reference.sparse_attention(q.double(), k, v, chosen, **settings),
    )
    settings = {**packing, "scale": 0.2, "k_idx_descale": index_scales}
    assert_right(
        scoring.block_scores(arm, q_idx, k_idx, **settings),
        reference.block_scores(q_idx.double(), k_idx, **settings),
    )


@ARMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_widening_is_exact(arm, dtype):
    """Every byte with the least and the largest scale: of one token the output is the value."""
    sizes = torch.tensor([2**-9, -1.75 * 2**-6, 1.0, 448.0])
    scales = sizes.repeat_interleave(8).view(32, 1, 1).expand(32, 1, 4)
    scales = scales.to(torch.float8_e4m3fn).contiguous()
    v = torch.arange(256, dtype=torch.uint8).repeat(4).view(32, 1, 32).view(nvfp4.NVFP4)
    cu = torch.arange(33, dtype=torch.int32)
    q, chosen = torch.ones(32, 1, 64, dtype=dtype), torch.zeros(32, 1, 1, dtype=torch.int32)
    got, _ = attention.sparse_attention(
        arm, q, v, v, chosen, cu_q=cu, cu_k=cu, block=16, scale=0.0, k_descale=scales,
        v_descale=scales,
    )  # fmt: skip
    signs = torch.tensor([1.0, -1.0], dtype=dtype)[:, None]
    table = (signs * torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=dtype)).flatten()
    byte = torch.arange(256)
    pairs = torch.stack([table[byte & 15], table[byte >> 4]], -1).view(1, 8, 64)
    assert torch.equal(got.view(4, 8, 64), pairs * sizes.to(dtype)[:, None, None])


@ARMS
@pytest.mark.parametrize("contiguous", [True, False])
def test_pages_that_are_a_part_of_others(arm, contiguous):
    """Index keys of one head among several, and scales that do not lie side by side."""
    k, scales, pages = paged(ODD, 3)
    k, scales = k[:, 1:2], scales[:, 1:2]
    if contiguous:
        k, scales = k.contiguous(), scales.contiguous()
    q = ODD.draw(3, 1, 2, 64)
    settings = {**pages, "scale": 0.2, "k_idx_descale": scales}
    assert_right(
        scoring.paged_block_scores(arm, q, k, **settings),
        reference.paged_block_scores(q.double(), k, **settings),
    )


@pytest.mark.parametrize("implementation", [sm100_simulated, sm90_simulated], ids=lambda x: x.arm)
def test_the_whole_of_msa(implementation):
    """Index keys, keys and values in NVFP4, packed and in pages."""
    batch = Batch((40,), (70,), bits=4)
    q, q_idx = (batch.draw(40, heads, 64, salt=1) for heads in (4, 2))
    shapes = {"k": (70, 2), "v": (70, 2), "k_idx": (70, 1)}
    given = {name: batch.cached(*shape, salt=4) for name, shape in shapes.items()}
    caches = {name: x for name, (x, _) in given.items()}
    settings = {f"{name}_descale": scales for name, (_, scales) in given.items()}
    settings |= batch.packing | {"topk": 2, "scale": 0.2, "index_scale": 0.3}
    tensors = {"q": q, "q_idx": q_idx} | caches
    got, chosen = implementation.attend(**tensors, **settings)
    doubles = tensors | {"q": q.double(), "q_idx": q_idx.double()}
    want, expected = reference.attend(**doubles, **settings)
    assert torch.equal(chosen, expected)
    assert_right(got, want)

    (k, k_scales, pages), (v, v_scales, _), (k_idx, index_scales, _) = (
        paged(ODD, heads, salt=salt) for heads, salt in ((2, 1), (2, 2), (1, 3))
    )
    q, q_idx = (ODD.draw(3, 1, heads, 64, salt=1) for heads in (4, 2))
    settings = {
        **pages, "topk": 3, "scale": 0.2, "index_scale": 0.3, "k_descale": k_scales,
        "v_descale": v_scales, "k_idx_descale": index_scales,
    }  # fmt: skip
    got, chosen = implementation.attend_paged(q, q_idx, k, v, k_idx, **settings)
    want, expected = reference.attend_paged(q.double(), q_idx.double(), k, v, k_idx, **settings)
    assert torch.equal(chosen, expected)
    assert_right(got, want)


OF_BLOCKS, OF_PAGES = scoring_kernel.block_scales, decoding_kernel.page_scales
BYTES = "source.load(byte_registers(ROWS, DIM, warps))"
#: Function, what stands there, what is put there, what it does.
MISTAKES = {
    "the halves of a byte are swapped": (
        kernel.widen_groups, BYTES, f"({BYTES} << 4 | {BYTES} >> 4)", AssertionError,
    ),
    "the neighbouring group's scale": (
        kernel.load_scales, "of[None, :]", "(of ^ 1)[None, :]", AssertionError,
    ),
    "the neighbouring row's scale": (
        kernel.load_scales, "(row + member)", "(row + (member ^ 1))", (AssertionError, BoundsError),
    ),
    "one scale for all": (
        kernel.load_scales, "live = (member < rows)[:, None]",
        "live, of = (member < rows)[:, None], of * 0", AssertionError,
    ),
    "no scales": (
        kernel.widen_groups, "value = value * scale.to(into.dtype)", "pass", AssertionError,
    ),
}  # fmt: skip


@ARMS
@pytest.mark.parametrize("run", ["attention", "decode"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_seen(monkeypatch, run, arm, name):
    function, old, new, wanted = MISTAKES[name]
    small = replace(ODD, queries=(9,), keys=(45,))
    changed = planted(function, (old, new))
    with pytest.raises(wanted):
        assert_right(*simulated(monkeypatch, run, arm, small, replaced=changed))


@ARMS
@pytest.mark.parametrize(
    ("run", "function", "old", "new"),
    [
        ("scores", OF_BLOCKS, "column = head * EACH", "column = 0"),
        ("paged scores", OF_BLOCKS, "(scales, row, column", "(scales, row - BLOCK, column"),
        ("scores", OF_BLOCKS, "newest + 1 - block * BLOCK", "newest - block * BLOCK"),
        ("scores", OF_BLOCKS, "block = begin + step", "block = begin + step + 1"),
        ("decode", OF_PAGES, "slots + step * 3,", "slots,"),
        ("decode", kernel.load_scales, "(member < rows)", "(member < rows + 1)"),
    ],
)
def test_scales_from_elsewhere_are_seen(monkeypatch, run, function, arm, old, new):
    monkeypatch.setattr(decoding, "_PROGRAMS", 1)
    changed = planted(function, (old, new))
    with pytest.raises((AssertionError, BoundsError)):
        assert_right(*simulated(monkeypatch, run, arm, ODD, replaced=changed))


FNUZ = torch.float8_e4m3fnuz
#: What is changed of the arguments, and the error. Keys stand for values and index keys too.
REFUSED = {
    "no scales": ({"descale": lambda _: None}, TypeError, "_descale: wanted"),
    "scales of AMD's E4M3": (
        {"descale": lambda scales: scales.view(torch.uint8).view(FNUZ)}, TypeError,
        "_descale: wanted float8_e4m3fn .*, got float8_e4m3fnuz",
    ),
    "scales in float32": (
        {"descale": lambda scales: scales.float()}, TypeError, "_descale: wanted float8_e4m3fn",
    ),
    "scales of too few channels": (
        {"descale": lambda scales: scales[..., :-1]}, ValueError, "_descale: wanted",
    ),
    "a factor a head": (
        {"descale": lambda _: torch.ones(2)}, TypeError, "_descale: wanted",
    ),
    "32 channels": (
        {"q": lambda q: q[..., :32], "k": lambda k: k[..., :16].contiguous(),
         "descale": lambda scales: scales[..., :2]}, ValueError,
        "beside NVFP4 a size of 64, 128, got 32",
    ),
    "queries in E4M3": (
        {"q": lambda q: q.to(torch.float8_e4m3fn)}, TypeError,
        "wanted float8_e4m3fn as q.*, got float4_e2m1fn_x2",
    ),
    "queries in float32": (
        {"q": lambda q: q.float()}, TypeError,
        "wanted .*float16, bfloat16.*, got float32|wanted float32 as q.*, got float4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_kernel_takes_is_refused_before_a_launch(monkeypatch, run, name):
    changed, error, words = REFUSED[name]
    taken = []

    def refused(arm, *tensors, **settings):
        q, *caches = tensors
        q = changed.get("q", lambda x: x)(q)
        caches = [changed.get("k", lambda x: x)(x) if x.dtype == nvfp4.NVFP4 else x for x in caches]
        for scales in [one for one in settings if one.endswith("_descale")]:
            settings[scales] = changed.get("descale", lambda x: x)(settings[scales])
        taken.append(name)
        with pytest.raises(error, match=words):
            operation(arm, q, *caches, **settings)
        return torch.zeros(1)

    module, of = {
        "scores": (scoring, "block_scores"),
        "paged scores": (scoring, "paged_block_scores"),
        "attention": (attention, "sparse_attention"),
        "decode": (decoding, "sparse_decode"),
    }[run]
    operation = getattr(module, of)
    monkeypatch.setattr(module, of, refused)
    monkeypatch.setattr(launching, "simulate", lambda *_, **__: pytest.fail("it was launched"))
    RUNS[run](SM100, ODD)
    assert taken
