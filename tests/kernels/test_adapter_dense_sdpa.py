"""The control is dense causal attention, aligned at the bottom right."""

from __future__ import annotations

import pytest
import torch

from msa import reference
from msa.packing import cumulative
from msa_kernels import load


@pytest.mark.parametrize("q_lengths", [[40, 9, 1], [7, 1, 1], [1, 0, 1]])
@pytest.mark.parametrize("heads", [4, 2])
def test_control_is_attention_that_keeps_every_block(q_lengths, heads):
    draw = torch.Generator().manual_seed(1)
    cu_q, cu_k = cumulative(q_lengths), cumulative([40, 9, 1])
    q = torch.randn(sum(q_lengths), heads, 8, generator=draw)
    k, v = torch.randn(2, 50, 2, 8, generator=draw)
    index = torch.zeros(sum(q_lengths), 2, 4), torch.zeros(50, 1, 4)
    kwargs = {"cu_q": cu_q, "cu_k": cu_k, "block": 8, "topk": 5, "scale": 0.3, "index_scale": 1.0}
    out, selection = load("dense_sdpa").attend(q, k, v, *index, **kwargs)
    want, _ = reference.attend(q, k, v, *index, **kwargs)
    assert selection is None
    assert float((out - want).abs().max()) < 2e-6
