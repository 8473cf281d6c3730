"""Cases as plain numbers, and the tensors that they stand for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from unittest import mock

import torch
from hypothesis import strategies as st

import msa.attended
import msa.fast.decoding
import msa.fast.entries
import msa.fast.gathered
import msa.fast.lists
import msa.fast.pieces
import msa.fast.scoring
import msa.fast.selected
import msa.fast.selecting
from msa import fast, reference, reference_selection
from msa.packing import cumulative

IMPLEMENTATIONS = {"fast": fast, "reference": reference}
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
#: Tile sizes as small as they work, so that a few dozen tokens need several of every kind.
_TILES = (
    (msa.fast.scoring, "_TILE_COLUMNS", 4),
    (msa.fast.scoring, "_TILE", 16),
    (msa.fast.selecting, "_ROWS", 3),
    (msa.fast.lists, "_FEWEST", 8),
    (msa.fast.lists, "_MOST", 8),
    (msa.fast.threads, "_LARGE", 1),
    (msa.fast.entries, "_TILE", 2),
    (msa.fast.pieces, "_TILE", 64),
    (msa.fast.pieces, "_WIDE", 8),
    (msa.fast.selected, "_HELD", 64),
    (msa.fast.gathered, "_RUN", 8),
    (msa.fast.gathered, "_TILE_ROWS", 16),
    (msa.fast.decoding, "_HELD", 16),
    (reference_selection, "ROWS", 3),
    (msa.attended, "ROWS", 3),
)


@contextlib.contextmanager
def tiles(small):
    """The implementations with small tiles, or as they are."""
    with contextlib.ExitStack() as stack:
        for module, name, size in _TILES if small else ():
            stack.enter_context(mock.patch.object(module, name, size))
        yield


@dataclass(frozen=True)
class Case:
    """A packed batch and the settings of MSA.

    ``lengths`` are (queries, keys before them) of each sequence. ``values`` says what the tensors
    hold: ``whole`` numbers tie in masses and are multiplied without rounding.
    """

    implementation: str = "fast"
    lengths: tuple[tuple[int, int], ...] = ((3, 2),)
    groups: int = 1
    share: int = 1
    dim: int = 2
    index_dim: int = 2
    own_index_keys: bool = False
    block: int = 2
    topk: int = 1
    local: int = 1
    sinks: int = 0
    dtype: str = "float32"
    values: str = "normal"
    scale: float = 1.0
    index_scale: float = 1.0
    small_tiles: bool = False
    strided: bool = False
    chosen: str = "any"
    unread_nan: bool = False
    seed: int = 0

    @property
    def run(self):
        return IMPLEMENTATIONS[self.implementation]

    @property
    def exact(self) -> bool:
        """Whether float32 scores carry no rounding: small whole numbers times a power of two."""
        return self.values in ("whole", "same") and abs(self.index_scale) in (0.0, 0.5, 1.0, 2.0)

    @property
    def heads(self) -> int:
        return self.groups * self.share

    def packing(self):
        return {
            "cu_q": cumulative([q for q, _ in self.lengths]),
            "cu_k": cumulative([q + before for q, before in self.lengths]),
            "block": self.block,
        }

    def ranking(self):
        return {
            **self.packing(),
            "topk": self.topk,
            "local_blocks": self.local,
            "sink_blocks": self.sinks,
        }

    def rows(self):
        """(row, position, slice of its keys) of every query."""
        row = key = 0
        for queries, before in self.lengths:
            where = slice(key, key + queries + before)
            for i in range(queries):
                yield row + i, before + i, where
            row, key = row + queries, where.stop


def generator(case):
    return torch.Generator().manual_seed(case.seed)


def draw(case, shape, g):
    """A tensor of the case's values, dtype and strides."""
    if case.values == "whole":
        x = torch.randint(-2, 3, shape, generator=g).double()
    elif case.values == "same":
        x = torch.full(shape, 0.5, dtype=torch.float64)
    else:
        size = {"normal": 1.0, "sharp": 8.0, "tiny": 1e-3}[case.values]
        x = torch.randn(shape, generator=g, dtype=torch.float64) * size
    x = x.to(DTYPES[case.dtype])
    if case.strided and x.ndim > 1:
        wide = torch.full((*shape[::-1], 2), torch.nan, dtype=x.dtype)
        wide[..., 0] = x.permute(*range(x.ndim - 1, -1, -1))
        x = wide[..., 0].permute(*range(x.ndim - 1, -1, -1))
    return x


def index_tensors(case, g):
    tq, tk = (sum(n) for n in zip(*((q, q + b) for q, b in case.lengths), strict=True))
    heads = case.groups if case.own_index_keys else 1
    return draw(case, (tq, case.groups, case.index_dim), g), draw(
        case, (tk, heads, case.index_dim), g
    )


def main_tensors(case, g):
    tq, tk = (sum(n) for n in zip(*((q, q + b) for q, b in case.lengths), strict=True))
    return (
        draw(case, (tq, case.heads, case.dim), g),
        draw(case, (tk, case.groups, case.dim), g),
        draw(case, (tk, case.groups, case.dim), g),
    )


def pick_blocks(case, rows, newest, g):
    """Selections int32 [rows, groups, topk] where row i sees blocks 0 to newest[i]."""
    shape, own = (rows, case.groups, case.topk), newest[:, None]
    if case.chosen == "none":
        return torch.full(shape, -1, dtype=torch.int32)
    last = int(newest.max()) + 1 if rows else 0
    ids = torch.randint(-2, last + 2, shape, generator=g, dtype=torch.int32)
    if case.chosen == "all":
        ids = torch.arange(case.topk, dtype=torch.int32).expand(shape).clone()
    elif case.chosen == "own":  # the query's own block stands in some column of every row
        ids[..., case.seed % case.topk] = own.int()
    elif case.chosen == "hostile":
        wild = torch.tensor([2**31 - 1, -(2**31), 2**30, -7], dtype=torch.int32)
        where = torch.rand(shape, generator=g) < 0.4
        ids = torch.where(where, wild[torch.randint(0, 4, shape, generator=g)], ids)
    # Every other entry of a wider buffer, whose rest is no selection.
    return torch.stack([ids, torch.full_like(ids, 1)], -1)[..., 0] if case.strided else ids


LENGTHS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 9), st.sampled_from([16, 24, 33, 24, 16, 130])),
        st.one_of(st.just(0), st.integers(0, 20)),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


@st.composite
def cases(draw, lengths=LENGTHS):
    """Any case; k has room for the forced blocks."""
    local, sinks = draw(st.sampled_from([(1, 0), (1, 0), (1, 1), (2, 0), (2, 2), (3, 1)]))
    scales = st.sampled_from([1.0, 0.3, 0.5, 2.0, -0.5, 0.0, 1])
    return Case(
        implementation=draw(st.sampled_from(["fast", "fast", "reference"])),
        lengths=draw(lengths),
        groups=draw(st.integers(1, 3)),
        share=draw(st.sampled_from([1, 2, 3, 1, 2, 9])),
        dim=draw(st.integers(1, 5)),
        index_dim=draw(st.integers(1, 5)),
        own_index_keys=draw(st.booleans()),
        block=draw(st.sampled_from([1, 2, 3, 4, 5, 8])),
        topk=local + sinks + draw(st.integers(0, 4)),
        local=local,
        sinks=sinks,
        dtype=draw(st.sampled_from(["float32", *DTYPES])),
        values=draw(st.sampled_from(["normal", "whole", "same", "sharp", "tiny"])),
        scale=draw(scales),
        index_scale=draw(scales),
        small_tiles=draw(st.booleans()),
        strided=draw(st.booleans()),
        chosen=draw(st.sampled_from(["own", "own", "any", "all", "none", "hostile"])),
        unread_nan=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
