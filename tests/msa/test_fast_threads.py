from __future__ import annotations

import pytest
import torch

from msa.fast.threads import for_each


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


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
def test_the_first_error_is_raised():
    def work(piece: int) -> None:
        if piece == 1:
            raise ValueError("piece 1")

    with pytest.raises(ValueError, match="piece 1"):
        for_each(work, range(3), spread=True)
