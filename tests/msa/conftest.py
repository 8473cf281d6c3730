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


@pytest.fixture(scope="module", params=["at once", "in chunks"])
def entries_cut(request):
    """All entries of a call at once, and in several chunks even of a short one."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in chunks":
            patch.setattr("msa.fast.selected._HELD", 1 << 14)
        yield


@pytest.fixture(scope="module", params=["passes", "entries", "entries in chunks"])
def either_way(request):
    """Blocks one by one, and all of them in one batch, whatever is worth its while."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("attention", "backward"):
            patch.setattr(f"msa.fast.{module}.worth_passes", lambda *_: request.param == "passes")
        if request.param == "entries in chunks":
            patch.setattr("msa.fast.selected._HELD", 1 << 14)
        yield
