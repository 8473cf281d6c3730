"""E4M3 in every forward kernel: what its bytes mean, with a factor a head, beside any queries."""

from __future__ import annotations

import pytest
import torch
from kernel_batches import Shape

import msa_kernels
from msa import nvfp4, reference
from msa.packing import cumulative
from msa.quantized import E4M3, quantize
from msa_kernels import triton_ops
from msa_kernels.triton_ops import attention, limits
from msa_suites.case import Case
from msa_suites.correctness.run import conforms, run_checks
from msa_suites.correctness.subject import local_call
from msa_suites.hostile import with_gaps

NAME = "float8_e4m3fn"
CASES = {
    "everything": Case("small-fp8", (4, 2), (90, 19), Hq=6, Hkv=2, D=48, Di=32, block=32, topk=2,
                       dtype=NAME),
    "index": Case("small-fp8-index", (5,), (90,), Hq=3, Hkv=3, D=16, Di=16, block=16, topk=3,
                  dtype="float16", index_dtype=NAME),
    "cache": Case("small-fp8-cache", (2, 2), (83, 40), Hq=4, Hkv=2, D=32, Di=48, block=16, topk=3,
                  dtype="float16", kv_dtype=NAME, index_dtype=NAME),
    "cache-float32": Case("small-fp8-cache32", (4, 4), (60, 33), Hq=4, Hkv=2, D=32, Di=16, block=16,
                          topk=2, kv_dtype=NAME),
}  # fmt: skip


#: Case, way, and the checks that are run: all of them, or those that see what is special there.
RUNS = [
    ("everything", "query_outer", ()),
    ("everything", "key_outer", ("attention", "attention_lse", "attention_large", "pipeline")),
    ("index", "key_outer", ("scores", "scores_own_keys", "pipeline", "ties", "lowest_local")),
    ("cache", "query_outer", ()),
    ("cache-float32", "query_outer", ("attention", "decode", "decode_lse", "attend_paged")),
]


@pytest.mark.parametrize(("name", "way", "only"), RUNS)
def test_the_conformance_suite_passes(monkeypatch, name, way, only):
    monkeypatch.setattr(attention, "way_of", lambda *_: way)
    found = msa_kernels.load("triton")
    call, offered = local_call(found), msa_kernels.capabilities(found)
    results = run_checks(call, offered, cases=[CASES[name]], only=only)
    assert conforms(results), [r for r in results if r.status == "failed"]
    passed = sum(r.status == "passed" for r in results)
    assert passed == len(only) if only else passed > 25


def uneven(*shape, seed=0, axis=1):
    """Bytes and factors, each head of another size."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    sizes = 3.0 ** torch.arange(shape[axis]).view([-1 if i == axis else 1 for i in range(x.ndim)])
    return quantize(x * sizes, axis=axis)


SHAPE = Shape((5, 3), (50, 40), groups=3)


@pytest.mark.parametrize("index_dim", [16, 32, 80])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("scale", [0.2, -0.2])
def test_scores_of_bytes(index_dim, heads, scale):
    """Also of 16 channels, of which a product of bytes wants 32, and where the lowest wins."""
    q, q_factor = uneven(SHAPE.rows, SHAPE.groups, index_dim)
    k, k_factor = uneven(SHAPE.keys, heads, index_dim, seed=1)
    factors = {"q_idx_descale": q_factor, "k_idx_descale": k_factor}
    got = triton_ops.block_scores(q, k, **SHAPE.packing, scale=scale, **factors)
    right = reference.block_scores(q, k, **SHAPE.packing, scale=scale, **factors)
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_bytes_beside_wide_index_queries(dtype):
    q = SHAPE.index()[0].to(dtype)
    k, factor = uneven(SHAPE.keys, 3, SHAPE.index_dim)
    got = triton_ops.block_scores(q, k, **SHAPE.packing, scale=0.2, k_idx_descale=factor)
    right = reference.block_scores(q, k, **SHAPE.packing, scale=0.2, k_idx_descale=factor)
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("left_out", [(), ("q",), ("k", "v"), ("q", "k", "v")])
def test_factors_that_are_left_out_are_one(left_out):
    q, k, v = (uneven(n, h, 32, seed=n)[0] for n, h in ((8, 6), (90, 3), (90, 3)))
    heads = {"q": 6, "k": 3, "v": 3}
    factors = {
        f"{name}_descale": torch.rand(many) + 0.01
        for name, many in heads.items() if name not in left_out
    }  # fmt: skip
    # Without factors logits are thousands: one token takes all.
    call = {**SHAPE.packing, "scale": 1e-4, **factors}
    selection = SHAPE.selection()
    got = triton_ops.sparse_attention(q, k, v, selection, **call)
    right = reference.sparse_attention(q, k, v, selection, **call)
    assert got[0].dtype == torch.bfloat16
    error = (got[0].float() - right[0].float()).norm(dim=-1)
    assert bool((error <= 0.01 * right[0].float().norm(dim=-1)).all())
    torch.testing.assert_close(got[1], right[1], rtol=1e-4, atol=1e-4)


def test_factors_and_bytes_may_be_views():
    (q, qf), (k, kf), (v, vf) = (uneven(n, 3, 32, seed=n) for n in (8, 90, 90))
    selection = SHAPE.selection()
    wide = torch.full((3, 5), torch.nan)
    call = {**SHAPE.packing, "scale": 0.1}

    def strided(factor):
        view = wide.clone()[:, 2]
        return view.copy_(factor)

    plain = triton_ops.sparse_attention(
        q, k, v, selection, **call, q_descale=qf, k_descale=kf, v_descale=vf
    )
    views = triton_ops.sparse_attention(
        *(with_gaps(x) for x in (q, k, v)), selection, **call,
        q_descale=strided(qf), k_descale=strided(kf), v_descale=strided(vf),
    )  # fmt: skip
    assert torch.equal(plain[0], views[0])
    assert torch.equal(plain[1], views[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k_descale": torch.ones(2)}, r"k_descale: wanted float32 \[3\] on cpu, got .* \[2\]"),
        ({"v_descale": -torch.ones(3)}, "v_descale: wanted finite factors above 0"),
        ({"q_descale": torch.ones(3)}, "q_descale: wanted none for elements in float32"),
    ],
)
def test_wrong_factors_are_named(change, words):
    k, factor = uneven(90, 3, 32)
    q = torch.zeros(8, 3, 32)
    call = {**SHAPE.packing, "scale": 1.0, "k_descale": factor, "v_descale": factor}
    with pytest.raises(ValueError, match=words):
        triton_ops.sparse_attention(q, k, k, SHAPE.selection(), **call | change)


def test_a_device_without_the_format_refuses_it(monkeypatch):
    monkeypatch.setattr(limits, "DTYPES", limits.WIDE)
    k = uneven(90, 3, 32)[0]
    with pytest.raises(TypeError, match="k_idx: wanted one of float32, float16, got float8_e4m3fn"):
        triton_ops.block_scores(torch.zeros(8, 3, 32), k, **SHAPE.packing, scale=1.0)


def test_gradients_refuse_bytes():
    q, k = uneven(8, 3, 32)[0], uneven(90, 3, 32)[0]
    out, lse = torch.zeros(8, 3, 32), torch.zeros(8, 3)
    assert q.dtype == E4M3
    with pytest.raises(TypeError, match="q: wanted a floating dtype"):
        triton_ops.sparse_attention_backward(
            out, q, k, k, out, lse, SHAPE.selection(), **SHAPE.packing, scale=1.0
        )


@pytest.mark.parametrize("operation", ["attend", "sparse_attention", "block_scores"])
def test_caches_of_four_bits_are_refused(operation):
    lengths = {"cu_q": cumulative([4]), "cu_k": cumulative([4]), "block": 16}
    wide = torch.ones(4, 2, 32)
    packed, scales = nvfp4.quantize(wide)
    chosen = torch.zeros(4, 2, 1, dtype=torch.int32)
    calls = {
        "attend": lambda: triton_ops.attend(
            wide, packed, packed, wide, wide[:, :1], **lengths, topk=1, scale=1.0, index_scale=1.0,
            k_descale=scales, v_descale=scales,
        ),
        "sparse_attention": lambda: triton_ops.sparse_attention(
            wide, packed, packed, chosen, **lengths, scale=1.0, k_descale=scales, v_descale=scales,
        ),
        "block_scores": lambda: triton_ops.block_scores(
            wide, packed, **lengths, scale=1.0, k_idx_descale=scales,
        ),
    }  # fmt: skip
    with pytest.raises(TypeError, match=r"^k(_idx)?: wanted .*, got float4_e2m1fn_x2"):
        calls[operation]()
