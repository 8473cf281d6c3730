"""What tests of the retrofit share."""

from __future__ import annotations

import pytest
import torch

from .retrofitted import MODELS, tiny


@pytest.fixture(params=sorted(MODELS))
def model(request):
    kind, more = MODELS[request.param]
    return tiny(kind, **more)


@pytest.fixture
def two_threads(monkeypatch):
    """Threads wherever the fast path has any, however small the products are."""
    monkeypatch.setattr("msa.fast.threads._LARGE", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
