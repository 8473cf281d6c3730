"""Independent pieces of work on as many threads as PyTorch may use.

Small matrix products gain little from threads inside each operation: every operation would wait
for the slowest core, and the passes between the products would not overlap with them. Whole
pieces on one thread each do overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
#: Multiply-adds of a product below which threads wait longer for the interpreter than they compute.
_LARGE = 1 << 22


def settle_vector_math() -> None:
    """Make the first call of the vectorised functions that this package uses, on one thread.

    oneMKL picks the kernel of such a function in its first call; made by two threads at once, the
    call may return 11 right bits where 24 were asked for (pytorch/pytorch#188792).
    """
    for dtype in (torch.float32, torch.float64):
        torch.ones(1, dtype=dtype).exp().log()  # one element never leaves this thread


def large_products(selection: Tensor, block: int, heads: int, dim: int) -> bool:
    """Whether the products of a pass over key blocks are worth threads.

    Args:
        selection: ``[Tq, Hkv, k]``; about ``k * block`` queries choose a block.
        block: tokens per block.
        heads: rows of a product that a query makes.
        dim: channels.
    """
    rows = min(selection.shape[2] * block, len(selection)) * heads
    return rows * block * dim >= _LARGE


def for_each(work: Callable[[Item], None], items: Iterable[Item], *, spread: bool) -> None:
    """Call ``work`` on every item, in any order.

    Args:
        work: writes its result where no other item writes.
        items: the pieces.
        spread: use threads; False runs the pieces in turn, and so does a PyTorch that is
            limited to one thread.

    Raises:
        Exception: the first one that ``work`` raised.
    """
    pieces = list(items)
    threads = min(torch.get_num_threads(), len(pieces))
    if not spread or threads < 2:
        for piece in pieces:
            work(piece)
        return
    allowed = torch.get_num_threads()
    inference = torch.is_inference_mode_enabled()

    def run(piece: Item) -> None:
        # Modes belong to a thread. In this order: a disabled inference mode enables gradients.
        with torch.inference_mode(inference), torch.no_grad():
            work(piece)

    try:
        # The setting holds for the thread that makes it; new threads inherit the latest one.
        with ThreadPoolExecutor(threads, "msa", torch.set_num_threads, (1,)) as pool:
            for _ in pool.map(run, pieces):
                pass
    finally:
        torch.set_num_threads(allowed)
