"""NVFP4 bit by bit against ml_dtypes, and what it is given to."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from msa import fast, nvfp4, reference
from msa.nvfp4 import NVFP4
from msa.packing import cumulative
from msa.quantized import E4M3, decode
from msa.reference_paged import append_paged
from msa.scorers import find_scorer

GROUP = 16
BYTES = torch.arange(256, dtype=torch.uint8)


def their_values(packed, scales):
    """Float64 of elements and scales by ml_dtypes, one nibble at a time."""
    codes = packed.view(torch.uint8).numpy()
    halves = np.stack([codes & 15, codes >> 4], -1).reshape(*codes.shape[:-1], -1)
    elements = halves.astype("uint8").view(ml_dtypes.float4_e2m1fn).astype("float64")
    factors = scales.view(torch.uint8).numpy().view(ml_dtypes.float8_e4m3fn).astype("float64")
    return elements * np.repeat(factors, GROUP, -1)


def their_packing(x):
    """Codes of a float32 array and of its scales by ml_dtypes: rounded once each."""
    groups = x.reshape(*x.shape[:-1], -1, GROUP)
    largest = np.minimum(np.abs(groups).max(-1) / np.float32(6), np.float32(448))
    scales = largest.astype(ml_dtypes.float8_e4m3fn)
    divisor = scales.astype("float32")[..., None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotients = np.where(divisor > 0, groups / divisor, np.float32(0))
    codes = quotients.astype(ml_dtypes.float4_e2m1fn).view("uint8").reshape(x.shape)
    return codes[..., ::2] | codes[..., 1::2] << 4, scales.view("uint8")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_byte_under_every_scale_means_what_the_formats_say(dtype):
    """Exactly, in sixteen bits too."""
    packed = BYTES[:, None, None].expand(256, 256, GROUP // 2).contiguous().view(NVFP4)
    scales = BYTES[None, :, None].expand(256, 256, 1).contiguous().view(E4M3)
    got = nvfp4.values(packed, scales, dtype=dtype)
    assert got.dtype == dtype
    wanted = torch.from_numpy(their_values(packed, scales))
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=0, equal_nan=True)


@example(np.full((2, 32), 448 * 6, "float32"))
@example(np.full((2, 32), 3e38, "float32"))
@example(np.full((2, 32), 1e-40, "float32"))
@example(np.full((2, 32), 6 * 2.0**-10, "float32"))  # half of the least scale: to even, which is 0
@given(arrays("float32", (2, 32), elements=st.floats(-3e4, 3e4, width=32)))
def test_packing_is_bit_for_bit_that_of_ml_dtypes(x):
    packed, scales = nvfp4.quantize(torch.from_numpy(x))
    wanted, wanted_scales = their_packing(x)
    assert scales.view(torch.uint8).numpy().tolist() == wanted_scales.tolist()
    assert packed.view(torch.uint8).numpy().tolist() == wanted.tolist()


def test_ties_go_to_even():
    """Every middle between two elements, and what is next to it, under a scale of 1."""
    sizes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    middles = (sizes[1:] + sizes[:-1]) / 2
    x = torch.cat([middles, middles.nextafter(torch.tensor(9.0)), torch.tensor([6.0, 0.0])])
    x = torch.stack([x, -x]).float()
    packed, scales = nvfp4.quantize(x)
    assert scales.float().unique().tolist() == [1.0]
    to_even, above = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0], sizes[1:].tolist()
    wanted = torch.tensor([*to_even, *above, 6.0, 0.0])
    assert torch.equal(nvfp4.values(packed, scales), torch.stack([wanted, -wanted]).double())


@given(st.integers(0, 2**32 - 1))
def test_a_round_trip_keeps_every_bit(seed):
    """Of groups whose largest element is 6, which is what packing leaves behind."""
    draw = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, (3, 2, 32), dtype=torch.uint8, generator=draw)
    packed[..., ::8] = packed[..., ::8] & 0xF8 | 7
    scales = torch.randint(8, 127, (3, 2, 4), dtype=torch.uint8, generator=draw).view(E4M3)
    again, same = nvfp4.quantize(nvfp4.values(packed.view(NVFP4), scales, dtype=torch.float32))
    assert torch.equal(same.view(torch.uint8), scales.view(torch.uint8))
    assert torch.equal(again.view(torch.uint8), packed)


def test_nan_takes_its_group_along_and_no_other():
    x = torch.ones(2, 48)
    x[1, 20] = torch.nan
    nan = nvfp4.values(*nvfp4.quantize(x)).isnan()
    assert nan.nonzero()[:, 1].tolist() == list(range(16, 32))
    assert not nan[0].any()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 16, dtype=torch.int32), "x: wanted a floating tensor, got int32"),
        (
            torch.zeros(2, 16, dtype=torch.uint8).view(NVFP4),
            "x: wanted a floating tensor, got float4",
        ),
        (torch.zeros(2, 24), r"x: wanted channels in groups of 16, got float32 .2, 24."),
        (torch.zeros(2, 0), r"x: wanted channels in groups of 16"),
        (torch.tensor(1.0), r"x: wanted channels in groups of 16"),
    ],
)
def test_what_cannot_be_packed_is_named(x, words):
    with pytest.raises((TypeError, ValueError), match=words):
        nvfp4.quantize(x)


SIZES = {"q": (6, 4), "k": (9, 2), "v": (9, 2), "q_idx": (6, 2), "k_idx": (9, 1)}
CACHES = ("k", "v", "k_idx")
LENGTHS = {"cu_q": cumulative([6]), "cu_k": cumulative([9]), "block": 4, "topk": 2}


def batch():
    generator = torch.Generator().manual_seed(0)
    wide = {n: torch.randn(t, h, 32, generator=generator) for n, (t, h) in SIZES.items()}
    factors = {}
    for name in CACHES:
        size = 2.0 ** torch.arange(wide[name].shape[1])[:, None]
        wide[name], factors[f"{name}_descale"] = nvfp4.quantize(wide[name] * size)
    return wide, factors


def attend(implementation, tensors, factors):
    scales = {"scale": 0.2, "index_scale": 0.1}
    return implementation.attend(*tensors.values(), **LENGTHS, **scales, **factors)


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_caches_are_the_values_that_they_mean(implementation, dtype):
    tensors, factors = batch()
    tensors |= {name: tensors[name].to(dtype) for name in ("q", "q_idx")}
    meant = {
        name: decode(name, x, factors.get(f"{name}_descale"), axis=1).double()
        for name, x in tensors.items()
    }
    out, selection = attend(implementation, tensors, factors)
    wanted, chosen = attend(reference, meant, {})
    assert out.dtype == dtype
    assert torch.equal(selection, chosen)
    room = 2**-8 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(out.double(), wanted, rtol=room, atol=room)


WRONG = [
    (
        {"k_descale": None},
        TypeError,
        r"k_descale: wanted a float8_e4m3fn tensor \[9, 2, 2\], got None",
    ),
    (
        {"v_descale": torch.ones(9, 2, 2).to(torch.float8_e4m3fnuz)},
        TypeError,
        r"v_descale: wanted float8_e4m3fn \[9, 2, 2\], got float8_e4m3fnuz",
    ),
    (
        {"k_idx_descale": torch.ones(1)},
        TypeError,
        r"k_idx_descale: wanted float8_e4m3fn \[9, 1, 2\], got float32 \[1\]",
    ),
    (
        {"k_descale": torch.ones(9, 2, 1).to(E4M3)},
        ValueError,
        r"k_descale: wanted shape \[9, 2, 2\], got float8_e4m3fn \[9, 2, 1\]",
    ),
    (
        {"k_descale": torch.full((9, 2, 2), torch.nan).to(E4M3)},
        ValueError,
        "k_descale: wanted finite values, got nan",
    ),
]


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize(("change", "error", "words"), WRONG)
def test_wrong_scales_are_named(implementation, change, error, words):
    tensors, factors = batch()
    with pytest.raises(error, match=words):
        attend(implementation, tensors, factors | change)


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize("name", ["q", "q_idx"])
def test_queries_have_more_bits(implementation, name):
    tensors, factors = batch()
    tensors[name], factors[f"{name}_descale"] = nvfp4.quantize(tensors[name])
    with pytest.raises(TypeError, match=f"^{name}: wanted .*float8_e4m3fn .*, got float4"):
        attend(implementation, tensors, factors)


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize("name", CACHES)
def test_unnamed_bytes_and_wrong_sizes_are_refused(implementation, name):
    tensors, factors = batch()
    packed = tensors[name]
    with pytest.raises(TypeError, match=f"^{name}: wanted .*, got uint8"):
        attend(implementation, tensors | {name: packed.view(torch.uint8)}, factors)
    if name != "v":  # which has the sizes of k
        with pytest.raises(ValueError, match=rf"^{name}: wanted shape .* 16\], got .* 8\]"):
            attend(implementation, tensors | {name: packed[..., :8]}, factors)


@pytest.mark.parametrize("scorer", ["max", "mean", "quest", "random", "recent"])
def test_who_decodes_nothing_refuses_them(scorer):
    """Such as scorers, and adapters to other people's kernels."""
    tensors, _ = batch()
    q, k = tensors["q"], tensors["k"]
    lengths = {name: LENGTHS[name] for name in ("cu_q", "cu_k", "block")}
    with pytest.raises(TypeError, match=r"^k_idx: wanted float32 or float8_e4m3fn .*, got float4"):
        find_scorer(scorer)(q[:, :2], k, **lengths, scale=1.0)


def test_channels_that_are_no_groups_are_refused():
    tensors, factors = batch()
    tensors["q"] = tensors["q"][..., :24]
    with pytest.raises(ValueError, match="k: wanted channels in groups of 16 for NVFP4, got 24"):
        attend(reference, tensors, factors)


def test_new_tokens_are_not_packed_on_the_way_into_a_cache():
    """Their scales would have to be found first: the caller quantizes, and writes both."""
    pages = torch.zeros(3, 2, 4, 16, dtype=torch.uint8).view(NVFP4)
    new = torch.ones(1, 1, 2, 32)
    with pytest.raises(TypeError, match=r"k_pages: wanted float32 or float8_e4m3fn .*, got float4"):
        append_paged(
            new, new, new[:, :, :1], pages, pages, pages[:, :1],
            page_table=torch.zeros(1, 2, dtype=torch.int32),
            k_lens=torch.ones(1, dtype=torch.int32),
        )  # fmt: skip
