"""The fast path against the specification, on hostile shapes and values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from msa import fast, reference
from msa.packing import cumulative

pytestmark = pytest.mark.usefixtures("either_way")

RELATIVE = {
    torch.float64: 1e-6,  # LSE is float32 in every dtype
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}


def assert_close(got: Tensor, wanted: Tensor, relative: float) -> None:
    assert got.dtype == wanted.dtype
    assert torch.equal(got.isfinite(), wanted.isfinite())
    seen = wanted.isfinite()
    assert torch.equal(got[~seen], wanted[~seen])
    error = (got[seen].double() - wanted[seen].double()).norm()
    assert error <= relative * wanted[seen].double().norm() + 1e-12


def make(
    q_lens: list[int],
    k_lens: list[int],
    *,
    heads: int = 4,
    groups: int = 2,
    dim: int = 8,
    index_heads: int = 1,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[list[Tensor], dict[str, Any]]:
    g = torch.Generator().manual_seed(seed)
    tq, tk = sum(q_lens), sum(k_lens)
    shapes = [
        (tq, heads, dim),
        (tk, groups, dim),
        (tk, groups, dim),
        (tq, groups, dim),
        (tk, index_heads, dim),
    ]
    tensors = [torch.randn(s, generator=g).to(dtype) for s in shapes]
    return tensors, {"cu_q": cumulative(q_lens), "cu_k": cumulative(k_lens)}


def compare(
    tensors: list[Tensor],
    packing: dict[str, Any],
    *,
    block: int,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
    drop: float = 0.0,
) -> None:
    """Every operation from the same inputs; later ones from the reference's intermediate."""
    q, k, v, q_idx, k_idx = tensors
    before = [x.clone() for x in tensors]
    packing = packing | {"block": block}
    scores = reference.block_scores(q_idx, k_idx, scale=0.3, **packing)
    assert_close(fast.block_scores(q_idx, k_idx, scale=0.3, **packing), scores, 1e-5)
    # Coarse scores tie in masses.
    coarse = (scores * 2).round() / 2
    ranking = packing | {"topk": topk, "local_blocks": local_blocks, "sink_blocks": sink_blocks}
    selection = reference.select_blocks(coarse, **ranking)
    assert torch.equal(fast.select_blocks(coarse, **ranking), selection)
    g = torch.Generator().manual_seed(1)
    selection[torch.rand(selection.shape, generator=g) < drop] = -1
    selection = selection[..., torch.randperm(topk, generator=g)]
    wanted, wanted_lse = reference.sparse_attention(q, k, v, selection, scale=0.3, **packing)
    got, lse = fast.sparse_attention(q, k, v, selection, scale=0.3, **packing)
    assert_close(got, wanted, RELATIVE[q.dtype])
    assert_close(lse, wanted_lse, 1e-5)
    out, ids = fast.attend(q, k, v, q_idx, k_idx, scale=0.3, index_scale=0.3, **ranking)
    assert_close(
        out, fast.sparse_attention(q, k, v, ids, scale=0.3, **packing)[0], RELATIVE[q.dtype]
    )
    own = fast.block_scores(q_idx, k_idx, scale=0.3, **packing)
    assert torch.equal(ids, reference.select_blocks(own, **ranking))
    assert all(
        torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(tensors, before, strict=True)
    )


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 50)), min_size=1, max_size=3
    ).filter(lambda pairs: sum(q for q, _ in pairs) > 0),
    block=st.sampled_from([1, 4, 7, 16]),
    topk=st.integers(1, 6),
    forced=st.sampled_from([(1, 0), (2, 1), (1, 1), (3, 0)]),
    heads=st.sampled_from([(1, 1, 1), (4, 2, 1), (6, 2, 2), (3, 3, 1)]),
    drop=st.sampled_from([0.0, 0.3, 1.0]),
    dtype=st.sampled_from(list(RELATIVE)),
)
def test_any_small_shape(
    lengths: list[tuple[int, int]],
    block: int,
    topk: int,
    forced: tuple[int, int],
    heads: tuple[int, int, int],
    drop: float,
    dtype: torch.dtype,
) -> None:
    q_lens, k_lens = [q for q, _ in lengths], [q + more for q, more in lengths]
    tensors, packing = make(
        q_lens, k_lens, heads=heads[0], groups=heads[1], index_heads=heads[2], dtype=dtype
    )
    compare(
        tensors,
        packing,
        block=block,
        topk=max(topk, sum(forced)),
        local_blocks=forced[0],
        sink_blocks=forced[1],
        drop=drop,
    )


@pytest.mark.parametrize(
    ("q_lens", "k_lens"),
    [
        ([1], [1]),
        ([127, 128, 129], [127, 128, 129]),
        ([1, 0, 5], [129, 3, 700]),
        ([4], [4]),  # as many queries as heads
        ([300], [1000]),  # a chunk that starts inside a block
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nasty_lengths(q_lens: list[int], k_lens: list[int], dtype: torch.dtype) -> None:
    tensors, packing = make(q_lens, k_lens, dtype=dtype)
    for topk in (1, 3):
        compare(tensors, packing, block=128, topk=topk)


@pytest.mark.parametrize("length", [2047, 2048, 2049])
def test_around_the_budget(length: int) -> None:
    tensors, packing = make([length], [length], heads=2, groups=1)
    compare(tensors, packing, block=128, topk=15)


def test_long_enough_for_several_chunks_and_lists_longer_than_a_tile() -> None:
    tensors, packing = make([4500], [4700], heads=2, groups=1)
    compare(tensors, packing, block=64, topk=4)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msa.fast.threads._LARGE", 1)
    (q, k, v, q_idx, k_idx), packing = make([3000], [3000])
    options = packing | {"block": 32, "topk": 6, "scale": 0.3, "index_scale": 0.3}
    allowed = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(fast.attend(q, k, v, q_idx, k_idx, **options))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(allowed)
    (one, one_ids), (two, two_ids) = results
    assert torch.equal(one_ids, two_ids)
    assert_close(two, one, 1e-6)


def test_keep_all_is_dense_attention_bit_for_bit() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        (q, k, v, q_idx, k_idx), packing = make([700], [700], dim=16, dtype=dtype)
        options = packing | {"block": 64, "topk": 11, "scale": 0.25, "index_scale": 0.25}
        out, ids = fast.attend(q, k, v, q_idx, k_idx, **options)
        assert torch.equal(ids[-1, 0], torch.arange(11, dtype=torch.int32))
        dense = F.scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in (q, k, v)), is_causal=True, enable_gqa=True
        )
        assert torch.equal(out, dense[0].transpose(0, 1))


def test_unread_slots_may_hold_nan() -> None:
    (q, k, v, _, _), packing = make([40], [200])
    options = packing | {"block": 16, "scale": 0.3}
    for ids in ([0, 9], [10, 3]):  # 10 to 12 hold queries
        selection = torch.tensor(ids, dtype=torch.int32).expand(40, 2, 2).contiguous()
        clean, clean_lse = reference.sparse_attention(q, k, v, selection, **options)
        seen = torch.isin(torch.arange(200) // 16, torch.tensor(ids))
        bad_k, bad_v = (torch.where(seen[:, None, None], x, torch.nan) for x in (k, v))
        got, lse = fast.sparse_attention(q, bad_k, bad_v, selection, **options)
        assert_close(got, clean, 1e-5)
        assert_close(lse, clean_lse, 1e-5)


def test_non_contiguous_inputs() -> None:
    tensors, packing = make([150], [200])
    strided = [
        torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]
        .transpose(0, 1)
        .contiguous()
        .transpose(0, 1)
        for x in tensors
    ]
    assert not any(x.is_contiguous() for x in strided[:4])
    compare(strided, packing, block=16, topk=3, drop=0.2)
    halves = [torch.stack([x, x * torch.nan], -1)[..., 0] for x in tensors]
    compare(halves, packing, block=16, topk=3)


def test_bad_values_are_named() -> None:
    (q, k, v, q_idx, k_idx), packing = make([20], [20])
    options = packing | {"block": 4, "topk": 2, "scale": 0.3, "index_scale": 0.3}
    v[3, 1, 2] = torch.inf
    with pytest.raises(ValueError, match=r"v: wanted finite values, got inf at index \[3, 1, 2\]"):
        fast.attend(q, k, v, q_idx, k_idx, **options)
    v[3, 1, 2] = 0.0
    with pytest.raises(ValueError, match="topk: wanted at least"):
        fast.attend(q, k, v, q_idx, k_idx, **options, local_blocks=3)


def test_a_large_finite_sum_is_not_taken_for_a_bad_value() -> None:
    (q, k, v, q_idx, k_idx), packing = make([20], [20], dtype=torch.float16)
    k_idx.fill_(60000.0)
    fast.attend(q, k, v, q_idx, k_idx, block=4, topk=2, scale=0.3, index_scale=1e-6, **packing)
