"""The index loss of the fast path: against the specification, and autograd of a plain formula."""

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

pytestmark = pytest.mark.usefixtures("entries_cut")

_NAMES = ("q_idx", "k_idx", "q", "k")


def check(
    tensors: dict[str, Tensor], chosen: Tensor, options: dict[str, Any], relative: float = 3e-5
) -> None:
    """Inputs are the same for both, so that only float32 arithmetic differs."""
    given_ = [tensors[name] for name in _NAMES]
    before = [x.clone() for x in (*given_, chosen)]
    got = fast.index_kl(*given_, chosen, **options)
    wanted = reference.index_kl(*given_, chosen, **options)
    for mine, right in zip(got, wanted, strict=True):
        assert mine.dtype == right.dtype
        assert_close(mine, right, relative)
    for now, then in zip((*given_, chosen), before, strict=True):
        assert torch.equal(now.nan_to_num(), then.nan_to_num())


@settings(max_examples=25, deadline=None)
@given(
    lengths=SHAPES,
    block=st.sampled_from([1, 4, 7, 16]),
    topk=st.integers(1, 5),
    heads=st.sampled_from([(1, 1, 1), (4, 2, 1), (6, 2, 2), (3, 3, 1)]),
    kind=st.sampled_from(["hostile", "everything", "nothing"]),
    dtype=st.sampled_from(list(RELATIVE)),
    scales=st.sampled_from([(0.3, 0.4), (3.0, -2.0), (0.0, 0.0)]),
)
def test_any_small_shape(
    lengths: list[tuple[int, int]],
    block: int,
    topk: int,
    heads: tuple[int, int, int],
    kind: str,
    dtype: torch.dtype,
    scales: tuple[float, float],
) -> None:
    tensors, packing = make(
        lengths, heads=heads[0], groups=heads[1], index_heads=heads[2], dtype=dtype
    )
    chosen = hostile_selection(packing, heads[1], block, topk, kind)
    tensors = with_nan_where_nothing_reads(tensors, chosen, packing, block)
    options = {**packing, "block": block, "scale": scales[0], "index_scale": scales[1]}
    check(tensors, chosen, options)


@pytest.mark.parametrize("kind", ["hostile", "everything"])
def test_several_chunks_and_lists_longer_than_a_tile(kind: str) -> None:
    tensors, packing = make([(2100, 2200)], heads=2, groups=1)
    chosen = hostile_selection(packing, 1, 300, 3, kind)
    check(tensors, chosen, {**packing, "block": 300, "scale": 0.3, "index_scale": 0.3})


@pytest.mark.parametrize("size", [30.0, 1000.0])
def test_large_logits(size: float) -> None:
    """Losses of many nats a row: a student that all but excludes what the teacher looks at."""
    tensors, packing = make([(120, 150)], dtype=torch.float64)
    tensors["k"][::7] *= size
    tensors["k_idx"][::5] *= size
    chosen = hostile_selection(packing, 2, 16, 4, "hostile")
    options = {**packing, "block": 16, "scale": 0.3, "index_scale": 0.3}
    check(tensors, chosen, options, 1e-9)
    single = {name: x.float() for name, x in tensors.items()}
    assert float(fast.index_kl(*(single[n] for n in _NAMES), chosen, **options)[0]) > 3
    check(single, chosen, options, 1e-5 * size)


def test_autograd_of_a_plain_formula() -> None:
    """Dense softmaxes under a mask made apart from the package, in float64."""
    tensors, packing = make([(30, 45), (20, 20)], dtype=torch.float64)
    chosen = hostile_selection(packing, 2, 8, 3, "hostile")
    seen = plain_support(chosen, packing, 8)  # [Tq, Hkv, Tk]
    q_idx, k_idx = (tensors[name].clone().requires_grad_() for name in ("q_idx", "k_idx"))
    wide = tensors["k"].repeat_interleave(2, 1)
    logits = torch.einsum("ihd,jhd->ihj", tensors["q"], wide) * 0.3
    hidden = ~seen.repeat_interleave(2, 1)
    teacher = torch.softmax(logits.masked_fill(hidden, -1e300), -1).unflatten(1, (2, 2)).mean(2)
    student = torch.einsum("igd,jd->igj", q_idx, k_idx[:, 0]) * 0.4
    told = torch.log_softmax(student.masked_fill(~seen, -1e300), -1).masked_fill(~seen, 0.0)
    teacher = teacher.masked_fill(~seen, 0.0)
    loss = (torch.xlogy(teacher, teacher) - teacher * told).sum() / (50 * 2)
    wanted = (loss.detach(), *torch.autograd.grad(loss, (q_idx, k_idx)))
    options = {**packing, "block": 8, "scale": 0.3, "index_scale": 0.4}
    got = fast.index_kl(*(tensors[name] for name in _NAMES), chosen, **options)
    for mine, right in zip(got, wanted, strict=True):
        assert_close(mine, right, 1e-12)


def test_strides_make_no_difference() -> None:
    tensors, packing = make([(90, 120), (40, 40)], index_heads=2)
    chosen = heads_outermost(hostile_selection(packing, 2, 16, 3, "hostile"))
    apart = {name: heads_outermost(x) for name, x in tensors.items()}
    check(apart, chosen, {**packing, "block": 16, "scale": 0.3, "index_scale": 0.3})


def test_a_student_that_agrees_has_no_loss() -> None:
    tensors, packing = make([(90, 90)], heads=2, groups=2, index_heads=2)
    tensors["q_idx"], tensors["k_idx"] = tensors["q"], tensors["k"]
    chosen = hostile_selection(packing, 2, 16, 3, "everything")
    options = {**packing, "block": 16, "scale": 0.3, "index_scale": 0.3}
    loss, dq, dk = fast.index_kl(*(tensors[name] for name in _NAMES), chosen, **options)
    assert max(float(loss.abs()), float(dq.abs().max()), float(dk.abs().max())) < 1e-7


def test_the_branch_may_have_another_dtype_than_attention() -> None:
    tensors, packing = make([(40, 50)], dtype=torch.float64)
    tensors |= {name: tensors[name].float() for name in ("q_idx", "k_idx")}
    chosen = hostile_selection(packing, 2, 8, 3, "hostile")
    check(tensors, chosen, {**packing, "block": 8, "scale": 0.3, "index_scale": 0.3})


@pytest.mark.usefixtures("two_threads")
def test_the_same_bits_every_time_and_on_any_threads() -> None:
    tensors, packing = make([(700, 700), (300, 400)])
    options = {**packing, "block": 16, "scale": 0.3, "index_scale": 0.3}
    chosen = hostile_selection(packing, 2, 16, 4, "hostile")
    first, again = (
        fast.index_kl(*(tensors[name] for name in _NAMES), chosen, **options) for _ in range(2)
    )
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    torch.set_num_threads(1)
    alone = fast.index_kl(*(tensors[name] for name in _NAMES), chosen, **options)
    assert all(torch.equal(x, y) for x, y in zip(first, alone, strict=True))


def test_arguments_are_refused_as_everywhere() -> None:
    tensors, packing = make([(8, 8)])
    options = {**packing, "block": 4, "scale": 0.3, "index_scale": 0.3}
    chosen = hostile_selection(packing, 2, 4, 2, "everything")
    given_ = [tensors[name] for name in _NAMES]
    with pytest.raises(ValueError, match=r"^index_scale: wanted a finite number"):
        fast.index_kl(*given_, chosen, **options | {"index_scale": float("inf")})
    with pytest.raises(TypeError, match=r"^selection: wanted int32"):
        fast.index_kl(*given_, chosen.long(), **options)
