"""What several kernels share: which sequence a row or a tile of a packed batch belongs to.

Running totals stay on the device. A tile is a number of consecutive rows of one sequence; sequence
s has the tiles from ``start(s) // TILE + s`` on, which leaves each at least as many as it needs,
and the bound ``rows // TILE + sequences`` on all of them follows from shapes alone.
"""

import triton
import triton.language as tl


@triton.jit
def first_tile(totals, index, low, high, TILE: tl.constexpr):
    """Number of the first tile of a sequence, counting rows ``low`` to ``high`` only."""
    start = tl.minimum(tl.maximum(tl.load(totals + index), low), high) - low
    return start // TILE + index


@triton.jit
def sequence_of_tile(totals, tile, sequences, steps, low, high, TILE: tl.constexpr):
    """The last sequence whose first tile is at or before ``tile``.

    ``steps`` halvings are enough to search ``sequences``. A tile may have no rows.
    """
    left = tile * 0
    right = left + sequences - 1
    for _ in range(steps):
        middle = (left + right + 1) // 2
        fits = first_tile(totals, middle, low, high, TILE) <= tile
        left = tl.where(fits, middle, left)
        right = tl.where(fits, right, middle - 1)
    return left


@triton.jit
def sequence_of_row(totals, row, sequences, steps):
    """The sequence that holds ``row``, a scalar or a tensor of rows."""
    left = row * 0
    right = left + sequences - 1
    for _ in range(steps):
        middle = (left + right + 1) // 2
        fits = tl.load(totals + middle) <= row
        left = tl.where(fits, middle, left)
        right = tl.where(fits, right, middle - 1)
    return left


@triton.jit
def widened(x):
    """Float16 of E4M3, which has all of its values; everything else as it is."""
    return x.to(tl.float16) if x.dtype == tl.float8e4nv else x


@triton.jit
def position_shift(cu_q, cu_k, sequence):
    """What turns a packed row of a sequence into its position: causal, aligned bottom right."""
    keys = tl.load(cu_k + sequence + 1) - tl.load(cu_k + sequence)
    return keys - tl.load(cu_q + sequence + 1)


@triton.jit
def slot_block(chosen, slot, at, newest):
    """The block in slot ``at`` of a selection ``chosen``, and whether it counts; 0 if it does not.

    A selection is a set: of a block that stands there twice the first counts.
    """
    block = tl.max(tl.where(slot == at, chosen, -1), 0)
    before = tl.sum(((slot < at) & (chosen == block)).to(tl.int32), 0)
    taken = (block >= 0) & (block <= newest) & (before == 0)
    return tl.where(taken, block, 0), taken


@triton.jit
def newest_block(cu_q, cu_k, row, sequences, steps, BLOCK: tl.constexpr):
    """The block of a packed row's own token, and the sequence that holds the row."""
    sequence = sequence_of_row(cu_q, row, sequences, steps)
    return (row + position_shift(cu_q, cu_k, sequence)) // BLOCK, sequence
