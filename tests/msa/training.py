"""Hostile inputs that tests of the gradients and of the index loss share."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from msa.packing import cumulative

#: Of results, in norm; LSE is float32 in every dtype.
RELATIVE = {
    torch.float64: 1e-6,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}
#: Queries and keys of one to three sequences, some of them empty.
SHAPES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 40)).map(lambda pair: (pair[0], sum(pair))),
    min_size=1,
    max_size=3,
)


def assert_close(got: Tensor, wanted: Tensor, relative: float, floor: float = 1e-7) -> None:
    assert got.shape == wanted.shape
    assert bool(got.isfinite().all())
    error = (got.double() - wanted.double()).norm()
    assert error <= relative * wanted.double().norm() + floor


def make(
    lengths: list[tuple[int, int]],
    *,
    heads: int = 4,
    groups: int = 2,
    index_heads: int = 1,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and ``cu_q`` and ``cu_k``; of (queries, keys) of every sequence."""
    g = torch.Generator().manual_seed(0)
    tq, tk = (sum(counts) for counts in zip(*lengths, strict=True))
    shapes = {
        "q": (tq, heads, 8),
        "k": (tk, groups, 8),
        "v": (tk, groups, 8),
        "dout": (tq, heads, 8),
        "q_idx": (tq, groups, 6),
        "k_idx": (tk, index_heads, 6),
    }
    tensors = {name: torch.randn(s, generator=g).to(dtype) for name, s in shapes.items()}
    cu_q, cu_k = (cumulative(list(counts)) for counts in zip(*lengths, strict=True))
    return tensors, {"cu_q": cu_q, "cu_k": cu_k}


def heads_outermost(x: Tensor) -> Tensor:
    """The same values with gaps between the rows, and heads outermost in memory."""
    apart = x.new_zeros((x.shape[1], x.shape[0], 2 * x.shape[2]))
    view = apart[..., : x.shape[2]].transpose(0, 1)
    return view.copy_(x)


def hostile_selection(
    packing: dict[str, Any], groups: int, block: int, topk: int, kind: str
) -> Tensor:
    """int32 ``[Tq, Hkv, k]``: "everything" that there is, "nothing", or "hostile".

    Hostile: duplicates, blocks that are not visible or do not exist, and negative ids of any size
    in any place, whole rows of them too.
    """
    rows, longest = int(packing["cu_q"][-1]), int(packing["cu_k"].diff().max())
    blocks = -(-longest // block)
    if kind == "everything":
        return torch.arange(max(blocks, 1), dtype=torch.int32).expand(rows, groups, -1).clone()
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(-2, blocks + 2, (rows, groups, topk), generator=g, dtype=torch.int32)
    ids[::5, :, 0] = -(2**31)
    ids[3::7] = -1
    ids[1::11, :, -1] = 2**31 - 1
    return ids.fill_(-1) if kind == "nothing" else ids


def plain_support(chosen: Tensor, packing: dict[str, Any], block: int) -> Tensor:
    """Bool ``[Tq, Hkv, Tk]``, whether a query reads a token: one at a time, in plain Python."""
    cu_q, cu_k = packing["cu_q"].tolist(), packing["cu_k"].tolist()
    seen = torch.zeros((*chosen.shape[:2], cu_k[-1]), dtype=torch.bool)
    for s in range(len(cu_q) - 1):
        for row in range(cu_q[s], cu_q[s + 1]):
            position = cu_k[s + 1] - cu_k[s] - cu_q[s + 1] + row
            for group, ids in enumerate(chosen[row].tolist()):
                for b in ids:
                    if 0 <= b <= position // block:
                        stop = min((b + 1) * block, position + 1)
                        seen[row, group, cu_k[s] + b * block : cu_k[s] + stop] = True
    return seen


def with_nan_where_nothing_reads(
    tensors: dict[str, Tensor], chosen: Tensor, packing: dict[str, Any], block: int
) -> dict[str, Tensor]:
    """NaN in every slot of keys and values that no query reads."""
    unread = ~plain_support(chosen, packing, block).any(0).T  # [Tk, Hkv]
    found = dict(tensors)
    for name in ("k", "v", "k_idx"):
        mine = unread if tensors[name].shape[1] == unread.shape[1] else unread.all(1, keepdim=True)
        found[name] = tensors[name].masked_fill(mine[..., None], torch.nan)
    return found
