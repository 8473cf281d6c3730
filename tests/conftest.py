"""What all tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def one_thread():
    """PyTorch on one thread, as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
