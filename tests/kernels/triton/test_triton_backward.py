"""Gradients of attention over a given selection, on hostile shapes and selections."""

from __future__ import annotations

import pytest
import torch
from kernel_batches import Shape

from msa import reference
from msa_kernels.triton_ops import sparse_attention_backward
from msa_suites.correctness.checks_backward import GRADIENT_TIMES
from msa_suites.correctness.eager import eager_backward
from msa_suites.correctness.passrule import compare
from msa_suites.hostile import with_gaps

SHAPES = {
    "ragged": Shape((5, 0, 4, 1), (5, 5, 50, 40)),
    "chunk-inside-block": Shape((4, 2), (70, 35), groups=3, share=1, dim=48),
    "group-of-3": Shape((25,), (60,), groups=1, share=3),
    "group-of-16-dim-128": Shape((5, 1), (40, 9), groups=1, share=16, dim=128, topk=2),
    "block-128": Shape((5,), (300,), groups=1, dim=128, block=128, topk=2),
    "no-power-of-two": Shape((4,), (130,), groups=2, dim=80, block=48, topk=5),
    "more-slots-than-blocks": Shape((4, 1), (30, 1), topk=7),
    "float16": Shape((3, 2), (70, 50), share=4, block=32, dtype=torch.float16),
}


def given(shape):
    """Arguments, with the forward's own output and LSE."""
    q, k, v = shape.main()
    return (torch.randn(q.shape, generator=shape.generator()).to(q.dtype), q, k, v)


def assert_differentiates(shape, dout, q, k, v, selection):
    settings = {**shape.packing, "scale": shape.scale}
    exact = [x.double() for x in (q, k, v)]
    out, lse = reference.sparse_attention(*exact, selection, **settings)
    forward = (out.to(q.dtype), lse, selection)
    got = sparse_attention_backward(dout, q, k, v, *forward, **settings)
    truth = reference.sparse_attention_backward(
        dout.double(), *exact, out, *forward[1:], **settings
    )
    eager = eager_backward(dout, q, k.nan_to_num(), v.nan_to_num(), selection, **settings)
    for name, mine, right, yardstick in zip(("dq", "dk", "dv"), got, truth, eager, strict=True):
        assert (mine.shape, mine.dtype) == (right.shape, q.dtype)
        wrong = compare(mine, right, eager=yardstick, dtype=q.dtype, times=GRADIENT_TIMES)
        assert wrong is None, f"{name}: {wrong}"
    return got


@pytest.mark.parametrize("name", SHAPES)
def test_hostile_shapes(name):
    shape = SHAPES[name]
    assert_differentiates(shape, *given(shape), shape.selection())


def test_queries_that_share_a_block_over_many_tiles():
    shape = Shape((90, 9), (110, 60), groups=2, share=3)
    selection = shape.selection()
    selection[:, :, 0] = 0  # in some rows a second time
    assert_differentiates(shape, *given(shape), selection)


def test_rows_and_keys_that_nobody_sees_have_no_gradient_and_their_nan_reaches_nobody():
    shape = Shape((20,), (75,), share=2, topk=3)
    dout, q, k, v = given(shape)
    selection = shape.selection()
    selection[::3] = -1
    selection[selection == 1] = -1  # block 1: tokens 16 to 32
    selection[4::5, :, 0] = 2**31 - 1
    clean = selection.where(selection < 5, -1)
    want = assert_differentiates(shape, dout, q, k, v, clean)
    assert not want[0][::3].any()
    assert not want[1][16:32].any()
    assert not want[2][16:32].any()
    for x in (k, v):
        x[16:32] = torch.nan
    out, lse = reference.sparse_attention(q, k, v, clean, **shape.packing, scale=shape.scale)
    settings = {**shape.packing, "scale": shape.scale}
    got = sparse_attention_backward(dout, q, k, v, out, lse, selection, **settings)
    for mine, right in zip(got, want, strict=True):
        assert torch.allclose(mine, right, atol=1e-5)


def test_strides_are_followed():
    shape = Shape((7,), (40,), groups=2, share=2)
    dout, q, k, v = given(shape)
    selection = shape.selection()
    want = assert_differentiates(shape, dout, q, k, v, selection)
    wide = [with_gaps(x) for x in (dout, q, k, v)]
    got = assert_differentiates(shape, *wide, with_gaps(selection))
    for mine, right in zip(got, want, strict=True):
        assert torch.equal(mine, right)
