"""E4M3 by the format's own words (OCP's specification of 8-bit floats), and what it is given to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from msa import fast, reference
from msa.packing import cumulative
from msa.quantized import E4M3, decode, output_dtype, quantize


def meaning(byte):
    """Sign, four bits of exponent with bias 7, three of mantissa; no infinity, one NaN a sign."""
    sign = -1.0 if byte & 0x80 else 1.0
    exponent, mantissa = byte >> 3 & 15, byte & 7
    if (exponent, mantissa) == (15, 7):
        return float("nan")
    if not exponent:
        return sign * mantissa / 8 * 2.0**-6
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def test_every_byte_means_what_the_format_says():
    codes = torch.arange(256, dtype=torch.uint8).view(E4M3)[:, None]
    wanted = torch.tensor([meaning(byte) for byte in range(256)]).double()[:, None]
    twice = decode("k", codes, torch.tensor([2.0]), axis=1)
    torch.testing.assert_close(twice, 2 * wanted, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(decode("k", codes, None, axis=1), wanted, rtol=0, atol=0,
                               equal_nan=True)  # fmt: skip


@example(np.full((5, 3, 4), 2.96e-43, "float32"))  # a 448th of it is no float32
@example(np.full((5, 3, 4), 448 * 2.0**-126, "float32"))
@given(arrays("float32", (5, 3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_a_value_returns_within_half_a_step(values):
    x = torch.from_numpy(values)
    codes, descale = quantize(x, axis=1)
    got = decode("x", codes, descale, axis=1)
    # Half of 2^-3 of a normal value; of what is smaller, half of the least step.
    allowed = torch.maximum(x.double().abs() / 16, descale.double()[:, None] * 2.0**-10)
    assert bool(((got - x).abs() <= allowed * (1 + 1e-5)).all())
    largest = codes.float().abs().amax((0, 2))
    tiny = x.abs().amax((0, 2)) < 448 * torch.finfo(torch.float32).tiny
    assert bool(((largest == 448) | tiny).all())
    assert bool((descale >= torch.finfo(torch.float32).tiny).all())


def test_a_head_of_zeros_and_nan_are_as_they_were():
    x = torch.zeros(3, 2, 4)
    x[1, 1, 2] = torch.nan
    x[0, 1, 0] = 2.0
    codes, descale = quantize(x, axis=1)
    assert descale.tolist() == [1.0, pytest.approx(2 / 448)]
    assert decode("x", codes, descale, axis=1).isnan().nonzero().tolist() == [[1, 1, 2]]


@pytest.mark.parametrize(
    ("x", "axis", "words"),
    [
        (torch.zeros(3, dtype=torch.int32), 0, "x: wanted a floating tensor, got int32"),
        (torch.zeros(3, 2), 2, "axis: wanted one of the 2 axes of x, got 2"),
    ],
)
def test_what_cannot_be_quantized_is_named(x, axis, words):
    with pytest.raises((TypeError, ValueError), match=words):
        quantize(x, axis=axis)


NAMES = ("q", "k", "v", "q_idx", "k_idx")
SIZES = {"q": (6, 4), "k": (9, 2), "v": (9, 2), "q_idx": (6, 2), "k_idx": (9, 1)}
LENGTHS = {"cu_q": cumulative([6]), "cu_k": cumulative([9]), "block": 4, "topk": 2}


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(t, h, 8, generator=generator) for n, (t, h) in SIZES.items()}


def quantized(wide, names=NAMES):
    tensors, factors = dict(wide), {}
    for name in names:
        tensors[name], factors[f"{name}_descale"] = quantize(wide[name], axis=1)
    return tensors, factors


def attend(implementation, tensors, factors):
    scales = {"scale": 0.4, "index_scale": 0.3}
    return implementation.attend(*tensors.values(), **LENGTHS, **scales, **factors)


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize("names", [NAMES, ("k", "v"), ("k_idx",), ("q_idx", "k_idx")])
def test_quantized_tensors_are_the_values_that_they_mean(implementation, names):
    """The same as those values in float64: factors are per head, and each goes where it belongs."""
    tensors, factors = quantized(batch(), names)
    meant = {
        name: decode(name, x, factors.get(f"{name}_descale"), axis=1).double()
        for name, x in tensors.items()
    }
    out, selection = attend(implementation, tensors, factors)
    wanted, same = attend(implementation, meant, {})
    assert out.dtype == (torch.bfloat16 if "q" in names else torch.float32)
    assert out.dtype == output_dtype(tensors["q"])
    assert torch.equal(selection, same)
    torch.testing.assert_close(
        out.double(), wanted, rtol=2**-8 if "q" in names else 1e-5, atol=1e-5
    )


WRONG = [
    ({"k_descale": torch.tensor([1.0])}, "k_descale: wanted float32 .2. on cpu, got float32 .1."),
    ({"v_descale": torch.tensor([1.0, 0.0])}, "v_descale: wanted finite factors above 0"),
    ({"q_idx_descale": torch.tensor([1.0, torch.nan])}, "q_idx_descale: wanted finite factors"),
    ({"k_idx_descale": torch.ones(1).double()}, "k_idx_descale: wanted float32 .1. on cpu"),
    ({"q_descale": 2.0}, "q_descale: wanted float32 .4. on cpu, got float 2.0"),
]


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize(("change", "words"), WRONG)
def test_wrong_factors_are_named(implementation, change, words):
    tensors, factors = quantized(batch())
    with pytest.raises(ValueError, match=words):
        attend(implementation, tensors, factors | change)


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize("name", NAMES)
def test_factors_of_wide_elements_are_refused(implementation, name):
    """Somebody who passes them thinks that the elements are bytes."""
    factor = {f"{name}_descale": torch.ones(SIZES[name][1])}
    with pytest.raises(ValueError, match=f"{name}_descale: wanted none for elements in float32"):
        attend(implementation, batch(), factor)


@pytest.mark.parametrize("implementation", [reference, fast])
@pytest.mark.parametrize("other", [torch.float8_e5m2, torch.float8_e4m3fnuz])
@pytest.mark.parametrize("name", NAMES)
def test_other_formats_of_eight_bits_are_refused(implementation, other, name):
    tensors, factors = quantized(batch())
    tensors[name] = tensors[name].view(torch.uint8).view(other)
    with pytest.raises(
        TypeError, match=f"^{name}: wanted .*float8_e4m3fn .*, got {str(other)[6:]}"
    ):
        attend(implementation, tensors, factors)


def test_gradients_take_no_quantized_tensors():
    tensors, _ = quantized(batch())
    q, k, v = (tensors[name] for name in ("q", "k", "v"))
    out, lse = torch.zeros(6, 4, 8), torch.zeros(6, 4)
    chosen = torch.zeros(6, 2, 2, dtype=torch.int32)
    lengths = {name: LENGTHS[name] for name in ("cu_q", "cu_k", "block")}
    with pytest.raises(TypeError, match=r"q: wanted a floating dtype .*, got float8_e4m3fn"):
        reference.sparse_attention_backward(out, q, k, v, out, lse, chosen, **lengths, scale=0.4)
    with pytest.raises(TypeError, match=r"q: wanted a floating dtype .*, got float8_e4m3fn"):
        reference.index_kl(tensors["q_idx"], tensors["k_idx"], q, k, chosen, **lengths, scale=0.4,
                           index_scale=0.3)  # fmt: skip
