"""Tile sizes: one table per kernel, by the bytes of an element and the padded head dim.

Chosen by arithmetic (registers and shared memory of sm_90), not measured: no GPU was at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tile:
    """Shape of one step of a kernel.

    Attributes:
        rows: rows of the product, M: queries times heads or groups. Tensor cores of sm_90 and
            sm_100 want 64 at least.
        warps: warps of a program.
        stages: loads in flight.
    """

    rows: int
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, int | bool]:
        """What the compiler is told."""
        return {"num_warps": self.warps, "num_stages": self.stages, **FUSION}


#: Queries times groups against as many index keys.
SCORING = {
    (2, 16): Tile(128, 8, 3),
    (2, 32): Tile(128, 8, 3),
    (2, 64): Tile(128, 8, 3),
    (2, 128): Tile(128, 8, 3),
    (4, 16): Tile(64, 8, 2),
    (4, 32): Tile(64, 8, 2),
    (4, 64): Tile(64, 8, 2),
    (4, 128): Tile(64, 8, 1),
}
#: One query or a few of a request against all of its index keys: memory decides, not products.
SCORING_FEW = {
    (2, 16): Tile(64, 4, 4),
    (2, 32): Tile(64, 4, 4),
    (2, 64): Tile(64, 4, 4),
    (2, 128): Tile(64, 4, 4),
    (4, 16): Tile(16, 4, 2),
    (4, 32): Tile(16, 4, 2),
    (4, 64): Tile(16, 4, 2),
    (4, 128): Tile(16, 4, 2),
}
#: The heads of one query against one block: too few rows for the newest tensor cores.
QUERY_OUTER = {
    (2, 16): Tile(16, 4, 3),
    (2, 32): Tile(16, 4, 3),
    (2, 64): Tile(16, 4, 3),
    (2, 128): Tile(16, 4, 2),
    (4, 16): Tile(16, 4, 2),
    (4, 32): Tile(16, 4, 2),
    (4, 64): Tile(16, 4, 2),
    (4, 128): Tile(16, 8, 1),
}
#: The same over keys and values in E4M3, which are widened on the way: with fewer warps it spills.
QUERY_OUTER_E4M3 = {
    (2, 16): Tile(16, 8, 3),
    (2, 32): Tile(16, 8, 3),
    (2, 64): Tile(16, 8, 3),
    (2, 128): Tile(16, 8, 3),
    (4, 16): Tile(16, 8, 2),
    (4, 32): Tile(16, 8, 2),
    (4, 64): Tile(16, 8, 2),
    (4, 128): Tile(16, 8, 1),
}
#: Gathered queries times heads against one block.
KEY_OUTER = {
    (1, 64): Tile(64, 8, 1),  # the widened queries of more rows spill
    (2, 16): Tile(128, 8, 1),
    (2, 32): Tile(128, 8, 1),
    (2, 64): Tile(128, 8, 1),
    (2, 128): Tile(128, 8, 1),
    (4, 16): Tile(64, 8, 1),
    (4, 32): Tile(64, 8, 1),
    (4, 64): Tile(64, 8, 1),
    (4, 128): Tile(64, 8, 1),
}
#: The heads of one query, with three products a block instead of two.
GRAD_QUERIES = {
    (2, 16): Tile(16, 4, 2),
    (2, 32): Tile(16, 4, 2),
    (2, 64): Tile(16, 4, 2),
    (2, 128): Tile(16, 4, 1),
    (4, 16): Tile(16, 4, 1),
    (4, 32): Tile(16, 4, 1),
    (4, 64): Tile(16, 8, 1),
    (4, 128): Tile(16, 8, 1),
}
#: Queries times heads against one block, with two gradients held.
GRAD_KEYS = {
    (2, 16): Tile(64, 8, 1),
    (2, 32): Tile(64, 8, 1),
    (2, 64): Tile(64, 8, 1),
    (2, 128): Tile(64, 8, 1),
    (4, 16): Tile(32, 8, 1),
    (4, 32): Tile(32, 8, 1),
    (4, 64): Tile(32, 8, 1),
    (4, 128): Tile(32, 8, 1),
}
#: The heads of one query against one block, twice; with fewer warps or loads a register spills.
INDEX_ROWS = {
    (2, 16): Tile(16, 8, 2),
    (2, 32): Tile(16, 8, 2),
    (2, 64): Tile(16, 8, 2),
    (2, 128): Tile(16, 8, 2),
    (4, 16): Tile(16, 8, 2),
    (4, 32): Tile(16, 8, 2),
    (4, 64): Tile(16, 8, 2),
    (4, 128): Tile(16, 8, 2),
}
#: Queries against one block, a head at a time; with 8 warps it spills on sm_100a.
INDEX_KEYS = {
    (2, 16): Tile(64, 4, 1),
    (2, 32): Tile(64, 4, 1),
    (2, 64): Tile(64, 4, 1),
    (2, 128): Tile(64, 4, 1),
    (4, 16): Tile(16, 4, 1),
    (4, 32): Tile(16, 4, 1),
    (4, 64): Tile(16, 4, 1),
    (4, 128): Tile(16, 4, 1),
}


#: Asked for by name: triton 3.9 warns that its default will change.
FUSION = {"enable_fp_fusion": True}


def padded(size: int, least: int = 16) -> int:
    """The power of two that holds ``size``; tiles have no other sizes, and products want 16."""
    return max(least, int(triton.next_power_of_2(size)))


def tile_of(table: dict[tuple[int, int], Tile], x: Tensor) -> Tile:
    """The tile for a tensor ``[..., dim]``; E4M3 has those of 16 bits but for a few of its own."""
    size, dims = x.element_size(), padded(x.shape[-1])
    return table[(size, dims) if (size, dims) in table else (2, dims)]


def halvings(count: int) -> int:
    """Steps of a binary search in ``count`` entries."""
    return max(count - 1, 0).bit_length()
