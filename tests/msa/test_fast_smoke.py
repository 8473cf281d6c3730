from __future__ import annotations

import pytest
import torch

from msa import fast, reference
from msa.packing import cumulative


@pytest.mark.parametrize("topk", [1, 3])
def test_fast_agrees_with_the_reference_end_to_end(topk: int) -> None:
    torch.manual_seed(0)
    cu = cumulative([100, 33])
    q, k, v = (torch.randn(133, heads, 8) for heads in (4, 2, 2))
    q_idx, k_idx = torch.randn(133, 2, 8), torch.randn(133, 1, 8)
    settings = {
        "cu_q": cu,
        "cu_k": cu,
        "block": 16,
        "topk": topk,
        "scale": 0.35,
        "index_scale": 0.35,
    }
    wanted, wanted_ids = reference.attend(q, k, v, q_idx, k_idx, **settings)
    got, ids = fast.attend(q, k, v, q_idx, k_idx, **settings)
    assert torch.equal(ids, wanted_ids)
    assert (got - wanted).norm() <= 1e-5 * wanted.norm()
