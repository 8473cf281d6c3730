from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from msa import fast
from msa.fast.small import worth_passes
from msa.fast.threads import for_each, large_products

from .training import make


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_pieces_may_write_into_tensors_of_the_callers_mode(mode):
    with mode():
        out = torch.zeros(4)

        def work(piece: int) -> None:
            out[piece] += torch.ones(()) * piece

        for_each(work, range(4), spread=True)
        assert out.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, nullcontext])
def test_no_piece_records_gradients(mode):
    seen = []
    with mode():
        for_each(lambda _: seen.append(torch.is_grad_enabled()), range(4), spread=True)
    assert seen == [False] * 4


@pytest.mark.usefixtures("two_threads")
def test_gradients_that_an_operation_returns_carry_no_graph():
    tensors, packing = make(
        [(90, 90), (40, 40)], heads=4, groups=2, index_heads=1, dtype=torch.float32
    )
    chosen = torch.arange(4, dtype=torch.int32).expand(130, 2, 4).contiguous()
    names = ("q_idx", "k_idx", "q", "k")
    given = [tensors[name].requires_grad_() for name in names]
    got = fast.index_kl(*given, chosen, **packing, block=16, scale=0.3, index_scale=0.3)
    assert not any(x.requires_grad for x in got)


@pytest.mark.usefixtures("two_threads")
def test_the_first_error_is_raised():
    def work(piece: int) -> None:
        if piece == 1:
            raise ValueError("piece 1")

    with pytest.raises(ValueError, match="piece 1"):
        for_each(work, range(3), spread=True)


@pytest.mark.parametrize(
    ("queries", "topk", "block", "large"),
    [
        (8192, 16, 128, True),
        (8192, 4, 32, False),
        (4, 16, 128, False),  # no more queries than there are choose a block
        (64, 16, 128, True),
        (63, 16, 128, False),
    ],
)
def test_products_are_as_large_as_the_queries_that_choose_a_block(queries, topk, block, large):
    chosen = torch.zeros((queries, 2, topk), dtype=torch.int32)
    assert large_products(chosen, block, 8, 64) is large


@pytest.mark.parametrize(
    ("queries", "topk", "block", "keys", "passes"),
    [
        (8192, 16, 128, 8192, True),  # large products
        (8192, 4, 32, 8192, False),
        (64, 4, 32, 8192, False),
        (63, 4, 32, 8192, True),  # fewer blocks are chosen than there are
    ],
)
def test_small_blocks_are_a_batch_unless_few_are_chosen(queries, topk, block, keys, passes):
    chosen = torch.zeros((queries, 2, topk), dtype=torch.int32)
    assert worth_passes(chosen, keys, block, 8, 64) is passes
