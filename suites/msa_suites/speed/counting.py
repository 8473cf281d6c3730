"""The arithmetic that a call really does, counted inside the subject's process.

torch's counter knows nothing of the CPU's flash attention and gives 0 for it, so its formula is
registered here. The count does not depend on the machine's load: a silent dense path shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode


def _flash_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object
) -> int:
    """Two products over every (query, key) pair of ``[B, H, T, D]`` inputs, masked or not."""
    batch, heads, rows, dim = query
    return 2 * batch * heads * rows * key[-2] * (dim + value[-1])


def count_operation(subject: object, operation: str, *args: object, **kwargs: object) -> int:
    """Floating-point operations of the matrix products of one call of the subject."""
    return counted(partial(getattr(subject, operation), *args, **kwargs))


def counted(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products of a call.

    On one thread: torch counts what the calling thread does, and no other.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    try:
        with FlopCounterMode(display=False, custom_mapping={flash: _flash_flops}) as counter:
            call()
    finally:
        torch.set_num_threads(threads)
    return int(counter.get_total_flops())
