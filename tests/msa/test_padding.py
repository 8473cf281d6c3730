"""Padded batches to packed sequences and back."""

from __future__ import annotations

import pytest
import torch

from msa.padding import pack, plan_packing, unpack

AT = torch.zeros(1)


def slots(batch, heads, length):
    """Each value says where it came from: batch * 100 + slot."""
    value = torch.arange(batch)[:, None] * 100 + torch.arange(length)
    return value[:, None, :, None].expand(batch, heads, length, 1).float()


def test_no_mask_is_views_and_bottom_right():
    x = torch.randn(1, 2, 5, 3)
    plan = plan_packing(None, 1, 2, 5, AT)
    assert plan.cu_q.tolist() == [0, 2]
    assert plan.cu_k.tolist() == [0, 5]
    assert pack(x, plan.k_index).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("capacity", [6, 9])
def test_left_padding_with_and_without_a_static_cache(capacity):
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]]).bool()
    plan = plan_packing(mask, 3, 3, capacity, AT)
    assert plan.cu_q.tolist() == [0, 3, 6, 7]
    assert plan.cu_k.tolist() == [0, 4, 10, 11]
    keys = pack(slots(3, 1, capacity)[:, :, : plan.k_slots], plan.k_index)
    assert keys[:, 0, 0].tolist() == [2, 3, 4, 5, 100, 101, 102, 103, 104, 105, 205]
    queries = pack(slots(3, 1, 3), plan.q_index)
    assert queries[:, 0, 0].tolist() == [0, 1, 2, 100, 101, 102, 202]
    back = unpack(queries, plan.q_index, 3, 3)
    assert back[..., 0, 0].tolist() == [[0, 1, 2], [100, 101, 102], [0, 0, 202]]


def test_a_full_mask_over_a_static_cache_copies_nothing():
    plan = plan_packing(torch.ones(2, 4).bool(), 2, 4, 8, AT)
    assert plan.q_index is None
    assert plan.k_index is None
    assert plan.k_slots == 4


def test_a_row_of_padding_alone_is_an_empty_sequence():
    plan = plan_packing(torch.tensor([[0, 0], [1, 1]]).bool(), 2, 2, 2, AT)
    assert plan.cu_q.tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(1, 1, 2, 2).bool(),
        torch.ones(1, 2),
        torch.ones(2, 2).bool(),
        torch.ones(1, 1).bool(),
        torch.ones(1, 9).bool(),
    ],
)
def test_other_masks_are_refused(mask):
    with pytest.raises(ValueError, match=r"^attention_mask: wanted"):
        plan_packing(mask, 1, 2, 4, AT)
