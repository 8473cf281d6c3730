"""Gradients of the fast path: against the specification, and autograd of a plain formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from msa import fast, reference

from .training import (
    RELATIVE,
    SHAPES,
    assert_close,
    heads_outermost,
    hostile_selection,
    make,
    plain_support,
    with_nan_where_nothing_reads,
)

pytestmark = pytest.mark.usefixtures("either_way")


def forward(tensors: dict[str, Tensor], chosen: Tensor, options: dict[str, Any]):
    """Output and LSE as the implementation itself returns them, and a gradient of the output."""
    q, k, v = (tensors[name] for name in "qkv")
    out, lse = fast.sparse_attention(q, k, v, chosen, **options)
    return tensors["dout"], q, k, v, out, lse


def check(tensors: dict[str, Tensor], chosen: Tensor, options: dict[str, Any]) -> None:
    given_ = forward(tensors, chosen, options)
    before = [x.clone() for x in (*given_, chosen)]
    got = fast.sparse_attention_backward(*given_, chosen, **options)
    # Of the output as it is given: what its rounding adds to a row is the forward's, not ours.
    wanted = reference_of_given_output(given_, chosen, options)
    for mine, right, like in zip(got, wanted, given_[1:4], strict=True):
        assert mine.dtype == like.dtype
        # A row of one token has no gradient by its logits, but for the rounding of a difference
        # that the scale multiplies.
        floor = 1e-5 * abs(options["scale"])
        assert_close(mine, right, 3 * RELATIVE[like.dtype], floor=floor)
    for now, then in zip((*given_, chosen), before, strict=True):
        assert torch.equal(now.nan_to_num(), then.nan_to_num())


def reference_of_given_output(
    given_: tuple[Tensor, ...], chosen: Tensor, options: dict[str, Any]
) -> tuple[Tensor, ...]:
    dout, q, k, v, out, lse = (x.double() for x in given_)
    exact, _ = reference.sparse_attention(q, k, v, chosen, **options)
    off = options["scale"] * (dout * (exact - out)).sum(-1, keepdim=True)
    lse = lse.float()
    dq, dk, dv = reference.sparse_attention_backward(dout, q, k, v, exact, lse, chosen, **options)
    towards, _ = reference.sparse_attention(q, k, k, chosen, **options)
    _, _, more = reference.sparse_attention_backward(
        off * q, q, k, k, exact, lse, chosen, **options
    )
    return dq + off * towards, dk + more, dv


@settings(max_examples=25, deadline=None)
@given(
    lengths=SHAPES,
    block=st.sampled_from([1, 4, 7, 16]),
    topk=st.integers(1, 5),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]),
    kind=st.sampled_from(["hostile", "everything", "nothing"]),
    dtype=st.sampled_from(list(RELATIVE)),
    scale=st.sampled_from([0.3, 3.0, -0.5, 0.0]),
)
def test_any_small_shape(
    lengths: list[tuple[int, int]],
    block: int,
    topk: int,
    heads: tuple[int, int],
    kind: str,
    dtype: torch.dtype,
    scale: float,
) -> None:
    tensors, packing = make(lengths, heads=heads[0], groups=heads[1], dtype=dtype)
    chosen = hostile_selection(packing, heads[1], block, topk, kind)
    tensors = with_nan_where_nothing_reads(tensors, chosen, packing, block)
    check(tensors, chosen, {**packing, "block": block, "scale": scale})


@pytest.mark.parametrize("kind", ["hostile", "everything"])
def test_several_chunks_and_lists_longer_than_a_tile(kind: str) -> None:
    tensors, packing = make([(2100, 2200)], heads=2, groups=1)
    chosen = hostile_selection(packing, 1, 300, 3, kind)
    check(tensors, chosen, {**packing, "block": 300, "scale": 0.3})


@pytest.mark.parametrize("size", [30.0, 1000.0])
def test_large_logits(size: float) -> None:
    """Beyond exp's range: weights that vanish, and none above 1."""
    tensors, packing = make([(120, 150)], dtype=torch.float64)
    tensors["k"][::7] *= size
    chosen = hostile_selection(packing, 2, 16, 4, "hostile")
    options = {**packing, "block": 16, "scale": 0.3}
    got = fast.sparse_attention_backward(*forward(tensors, chosen, options), chosen, **options)
    wanted = reference.sparse_attention_backward(
        *forward(tensors, chosen, options), chosen, **options
    )
    for mine, right in zip(got, wanted, strict=True):
        assert_close(mine, right, 1e-6 * size)  # LSE is float32, and as large as the logits


def test_strides_make_no_difference() -> None:
    tensors, packing = make([(90, 120), (40, 40)])
    chosen = heads_outermost(hostile_selection(packing, 2, 16, 3, "hostile"))
    apart = {name: heads_outermost(x) for name, x in tensors.items()}
    check(apart, chosen, {**packing, "block": 16, "scale": 0.3})


def test_autograd_of_a_plain_formula() -> None:
    """Dense softmax under a mask made apart from the package, in float64."""
    tensors, packing = make([(30, 45), (20, 20)], dtype=torch.float64)
    chosen = hostile_selection(packing, 2, 8, 3, "hostile")
    options = {**packing, "block": 8, "scale": 0.3}
    dout, q, k, v, out, lse = forward(tensors, chosen, options)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    wide_k, wide_v = (x.repeat_interleave(2, 1) for x in leaves[1:])
    logits = torch.einsum("ihd,jhd->ihj", leaves[0], wide_k) * 0.3
    seen = plain_support(chosen, packing, 8).repeat_interleave(2, 1)
    weight = torch.softmax(logits.masked_fill(~seen, -1e300), -1) * seen.any(-1, keepdim=True)
    wanted = torch.autograd.grad(torch.einsum("ihj,jhd->ihd", weight, wide_v), leaves, dout)
    got = fast.sparse_attention_backward(dout, q, k, v, out, lse, chosen, **options)
    for mine, right in zip(got, wanted, strict=True):
        assert_close(mine, right, 1e-6)


@pytest.mark.usefixtures("two_threads")
def test_the_same_bits_every_time_and_on_any_threads() -> None:
    tensors, packing = make([(700, 700), (300, 400)])
    options = {**packing, "block": 16, "scale": 0.3}
    chosen = hostile_selection(packing, 2, 16, 4, "hostile")
    first, again = (
        fast.sparse_attention_backward(*forward(tensors, chosen, options), chosen, **options)
        for _ in range(2)
    )
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    torch.set_num_threads(1)
    alone = fast.sparse_attention_backward(*forward(tensors, chosen, options), chosen, **options)
    assert all(torch.equal(x, y) for x, y in zip(first, alone, strict=True))


def test_no_tokens() -> None:
    tensors, packing = make([(0, 0)])
    chosen = torch.zeros((0, 2, 1), dtype=torch.int32)
    check(tensors, chosen, {**packing, "block": 4, "scale": 0.3})


def test_arguments_are_refused_as_everywhere() -> None:
    tensors, packing = make([(8, 8)])
    options = {**packing, "block": 4, "scale": 0.3}
    chosen = hostile_selection(packing, 2, 4, 2, "everything")
    dout, q, k, v, out, lse = forward(tensors, chosen, options)
    with pytest.raises(ValueError, match=r"^lse: wanted float32 \[8, 4\]"):
        fast.sparse_attention_backward(dout, q, k, v, out, lse[:, :2], chosen, **options)
    with pytest.raises(ValueError, match=r"^scale: wanted a finite number"):
        fast.sparse_attention_backward(
            dout, q, k, v, out, lse, chosen, **options | {"scale": float("nan")}
        )
