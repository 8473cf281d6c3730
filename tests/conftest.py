"""What all tests share."""

from __future__ import annotations

import gc

import pytest


def pytest_collection_finish():
    """Thousands of tests and all they import stay to the end: no collection need look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def one_thread():
    """PyTorch on one thread, as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
