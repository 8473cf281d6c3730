"""The path without a running maximum gives a result of its own, wherever its queries begin.

Where it gives none, a slower path answers: right numbers alone do not show that it works.
"""

from __future__ import annotations

import pytest
import torch

from msa import reference
from msa.fast import gathered
from msa.packing import cumulative


@pytest.mark.parametrize(("first", "count"), [(0, 48), (32, 50), (37, 5), (37, 60), (95, 1)])
def test_it_answers_by_itself(first, count):
    draw = torch.Generator().manual_seed(3)
    q = torch.randn(count, 2, 8, generator=draw)
    k, v = torch.randn(2, first + count, 1, 8, generator=draw)
    own = (first + torch.arange(count, dtype=torch.int32)) // 16
    chosen = torch.stack([torch.zeros_like(own), own], -1)[:, None]
    blocks = gathered.KeyBlocks(k[:, 0], v[:, 0], 16, 0.3)
    found = gathered.attend_rows(q, blocks, chosen[:, 0], first)
    assert found is not None
    lengths = {"cu_q": cumulative([count]), "cu_k": cumulative([first + count])}
    wanted = reference.sparse_attention(q, k, v, chosen, **lengths, block=16, scale=0.3)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
