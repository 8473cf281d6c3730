"""The index branch's loss and its gradient, on hostile shapes and selections."""

from __future__ import annotations

import pytest
import torch
from kernel_batches import Shape

from msa import reference
from msa_kernels.triton_ops import index_kl
from msa_suites.correctness.checks_backward import GRADIENT_TIMES
from msa_suites.correctness.eager import eager_index_kl
from msa_suites.correctness.passrule import compare
from msa_suites.hostile import with_gaps

SHAPES = {
    "ragged": Shape((5, 0, 4, 1), (5, 5, 50, 40)),
    "chunk-inside-block": Shape((4, 2), (70, 35), groups=3, share=1, dim=48, index_dim=80),
    "group-of-3": Shape((25,), (60,), groups=1, share=3),
    "group-of-16-dim-128": Shape((5, 1), (40, 9), groups=1, share=16, dim=128, topk=2),
    "block-128": Shape((5,), (300,), groups=1, dim=128, index_dim=128, block=128, topk=2),
    "no-power-of-two": Shape((4,), (130,), groups=2, dim=80, index_dim=48, block=48, topk=5),
    "more-slots-than-blocks": Shape((4, 1), (30, 1), topk=7),
    "float16": Shape((3, 2), (70, 50), share=4, block=32, dtype=torch.float16),
}


def given(shape, heads=1):
    return (*shape.index(heads), *shape.main()[:2])


def settings_of(shape):
    return {**shape.packing, "scale": shape.scale, "index_scale": shape.index_dim**-0.5}


def assert_aligns(shape, tensors, selection):
    settings = settings_of(shape)
    got = index_kl(*tensors, selection, **settings)
    truth = reference.index_kl(*(x.double() for x in tensors), selection, **settings)
    eager = eager_index_kl(*(x.nan_to_num() for x in tensors), selection, **settings)
    count = shape.rows * shape.groups
    for name, times, *parts in zip(
        ("loss", "dq_idx", "dk_idx"), (1, count, count), got, truth, eager, strict=True
    ):
        assert (parts[0].shape, parts[0].dtype) == (parts[1].shape, torch.float32)
        mine, right, yardstick = (x.double().reshape(x.shape or (1, 1)) * times for x in parts)
        wrong = compare(mine, right, eager=yardstick, dtype=shape.dtype, times=GRADIENT_TIMES)
        assert wrong is None, f"{name}: {wrong}"
    return got


@pytest.mark.parametrize("name", SHAPES)
def test_hostile_shapes(name):
    shape = SHAPES[name]
    assert_aligns(shape, given(shape), shape.selection())


def test_an_index_key_of_every_group():
    shape = Shape((20, 5), (75, 40), groups=3)
    assert_aligns(shape, given(shape, heads=3), shape.selection())


def test_queries_that_share_a_block_over_many_tiles():
    shape = Shape((90, 9), (110, 60), groups=2, share=3)
    selection = shape.selection()
    selection[:, :, 0] = 0  # in some rows a second time
    assert_aligns(shape, given(shape), selection)


def test_what_nobody_sees_has_no_gradient_and_its_nan_reaches_nobody():
    shape = Shape((20,), (75,), share=2, topk=3)
    tensors = given(shape)
    selection = shape.selection()
    selection[::3] = -1
    selection[selection == 1] = -1  # block 1: tokens 16 to 32
    selection[4::5, :, 0] = 2**31 - 1
    clean = selection.where(selection < 5, -1)
    want = assert_aligns(shape, tensors, clean)
    assert not want[1][::3].any()
    assert not want[2][16:32].any()
    for x in (tensors[1], tensors[3]):
        x[16:32] = torch.nan
    for mine, right in zip(index_kl(*tensors, selection, **settings_of(shape)), want, strict=True):
        assert torch.allclose(mine, right, atol=1e-6)


def test_a_student_that_is_the_teacher_costs_nothing():
    shape = Shape((20,), (75,), groups=2, share=1, dim=32)
    q, k, _ = shape.main()
    settings = {**settings_of(shape), "index_scale": shape.scale}
    loss, dq, dk = index_kl(q, k, q, k, shape.selection(), **settings)
    for x in (loss, dq, dk):
        assert x.abs().max() < 1e-6


def test_no_query_is_no_loss():
    shape = Shape((0,), (20,), groups=2)
    loss, dq, dk = index_kl(*given(shape), shape.selection(), **settings_of(shape))
    assert (float(loss), len(dq), bool(dk.any())) == (0.0, 0, False)


def test_strides_are_followed():
    shape = Shape((7,), (40,), groups=2, share=2)
    tensors, selection = given(shape), shape.selection()
    want = assert_aligns(shape, tensors, selection)
    got = assert_aligns(shape, [with_gaps(x) for x in tensors], with_gaps(selection))
    for mine, right in zip(got, want, strict=True):
        assert torch.equal(mine, right)
