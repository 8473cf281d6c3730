"""The fast path's arithmetic: far logits, shared blocks, merged parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from msa import fast, reference
from msa.fast import small
from msa.packing import cumulative

pytestmark = pytest.mark.usefixtures("either_way")


def assert_close(got: Tensor, wanted: Tensor, relative: float) -> None:
    assert torch.equal(got.isfinite(), wanted.isfinite())
    seen = wanted.isfinite()
    assert torch.equal(got[~seen], wanted[~seen])
    error = (got[seen].double() - wanted[seen].double()).norm()
    assert error <= relative * wanted[seen].double().norm() + 1e-12


def make(length: int, *, heads: int, groups: int) -> tuple[list[Tensor], dict[str, Any]]:
    g = torch.Generator().manual_seed(0)
    cu = cumulative([length])
    tensors = [torch.randn(length, n, 8, generator=g) for n in (heads, groups, groups)]
    return tensors, {"cu_q": cu, "cu_k": cu}


@pytest.mark.parametrize("size", [10.0, 100.0, 3000.0])
def test_sharp_logits_keep_their_precision(size: float) -> None:
    """Far beyond exp's range on either side of the local block's share."""
    (q, k, v), packing = make(500, heads=2, groups=1)
    k[:100] *= size  # blocks of enormous logits, before the local one
    options = packing | {"block": 32, "scale": 1.0}
    g = torch.Generator().manual_seed(2)
    local = torch.arange(500) // 32
    others = (torch.rand(500, 1, 3, generator=g) * local[:, None, None]).int()
    others[others == local[:, None, None]] = -1
    pair = others.sort(-1).values
    pair[..., 1:][pair[..., 1:] == pair[..., :-1]] = -1  # no duplicates
    selection = torch.cat([local[:, None, None].int(), pair], -1)
    wanted, wanted_lse = reference.sparse_attention(q, k, v, selection, **options)
    got, lse = fast.sparse_attention(q, k, v, selection, **options)
    # The logits themselves carry float32 rounding, which grows with their size.
    assert_close(got, wanted, 1e-5 * max(size / 10, 1))
    assert_close(lse, wanted_lse, 1e-5)


def test_combine() -> None:
    g = torch.Generator().manual_seed(3)
    outs, lses = torch.randn(3, 5, 2, 4, generator=g), torch.randn(3, 5, 2, generator=g) * 30
    lses[0, 1], lses[:, 2] = -torch.inf, -torch.inf
    outs[0, 1] = torch.nan
    for got, wanted in zip(fast.combine(outs, lses), reference.combine(outs, lses), strict=True):
        assert_close(got, wanted, 1e-5)


def test_neighbours_that_share_blocks() -> None:
    """Tiles of queries with one selection take a path without gathering."""
    (q, k, v), packing = make(1024, heads=4, groups=2)
    options = packing | {"block": 16, "scale": 0.3}
    local = torch.arange(1024) // 16
    g = torch.Generator().manual_seed(5)
    shared = (torch.rand(1024 // 128, 2, 3, generator=g) * 0.9).repeat_interleave(128, 0)
    ids = (shared * (local // 8 * 8)[:, None, None]).int().sort(-1).values
    ids[..., 1:][ids[..., 1:] == ids[..., :-1]] = -1
    ids[5::97] = -1  # holes in some tiles
    selection = torch.cat([ids, local[:, None, None].expand(-1, 2, 1).int()], -1)
    selection[:128, :, :3] = -1
    wanted, wanted_lse = reference.sparse_attention(q, k, v, selection, **options)
    got, lse = fast.sparse_attention(q, k, v, selection, **options)
    assert_close(got, wanted, 1e-5)
    assert_close(lse, wanted_lse, 1e-5)


def test_what_is_hidden_weighs_nothing() -> None:
    """However large a value behind a query is, of its own block, too: not a bit changes."""
    torch.manual_seed(0)
    q, k, v = torch.randn(64, 2, 8), torch.randn(64, 8), torch.randn(64, 8)
    later = v.clone()
    later[40:] = 1e30
    every = torch.arange(2, dtype=torch.int32).expand(64, 2).clone()
    some = every.clone()
    some[5] = -1  # one row with a hole
    for selection in (every, some):
        one, _ = small.attend_rows(q, k, v, selection, 0, 32, 0.3)
        other, _ = small.attend_rows(q, k, later, selection, 0, 32, 0.3)
        assert torch.equal(one[:40], other[:40])
