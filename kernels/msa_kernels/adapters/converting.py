"""What adapters share: the contract's tensors in the forms that other kernels take."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Collection

import torch
from torch import Tensor

from msa.packing import count_blocks, segments

_EMPTY = torch.iinfo(torch.int32).max


def ascending(selection: Tensor) -> Tensor:
    """Ids ``[..., k]`` in ascending order, the -1 behind them."""
    ids = torch.where(selection < 0, _EMPTY, selection).sort(-1).values
    return torch.where(ids == _EMPTY, -1, ids).to(torch.int32)


def widened(selection: Tensor, widths: Collection[int]) -> Tensor:
    """Ids ``[..., k]`` with a -1 tail up to the next width that a kernel takes.

    Raises:
        ValueError: more slots than the widest.
    """
    topk = selection.shape[-1]
    fitting = [width for width in sorted(widths) if width >= topk]
    if not fitting:
        raise ValueError(f"selection: wanted at most {max(widths)} slots, got {topk}")
    return torch.nn.functional.pad(selection, (0, fitting[0] - topk), value=-1)


def heads_first(selection: Tensor) -> Tensor:
    """Ids ``[T, H, k]`` as a dense ``[H, T, k]``."""
    return selection.transpose(0, 1).contiguous()


def lengths(cu: Tensor) -> Tensor:
    """Tokens of each sequence, int32 ``[B]``."""
    return (cu[1:] - cu[:-1]).to(torch.int32)


def longest(cu: Tensor) -> int:
    """The most tokens of one sequence; waits for the device."""
    return int(lengths(cu).max()) if len(cu) > 1 else 0


def local_blocks_of(cu_q: Tensor, cu_k: Tensor, block: int) -> Tensor:
    """The block that holds each query, int64 ``[Tq]``."""
    parts = [s.positions(cu_q.device) // block for s in segments(cu_q, cu_k)]
    return torch.cat(parts) if parts else cu_q.new_zeros(0, dtype=torch.int64)


def with_forced(
    scores: Tensor, cu_q: Tensor, cu_k: Tensor, *, block: int, local_blocks: int, sink_blocks: int
) -> Tensor:
    """A copy of scores ``[Tq, Hkv, NB]`` in which forced blocks are +inf and hidden ones -inf.

    For selectors that force blocks of the whole sequence, not of each query, or none.
    """
    local = local_blocks_of(cu_q, cu_k, block)[:, None]
    column = torch.arange(scores.shape[-1], device=scores.device)
    forced = (column < sink_blocks) | (column > local - local_blocks)
    seen = column <= local
    held = scores.masked_fill((forced & seen)[:, None], torch.inf)
    return held.masked_fill(~seen[:, None], -torch.inf)


def without_hidden(selection: Tensor, cu_q: Tensor, cu_k: Tensor, block: int) -> Tensor:
    """Ids ``[Tq, Hkv, k]`` without blocks of the future: -1 instead, left-packed, ascending."""
    local = local_blocks_of(cu_q, cu_k, block)[:, None, None]
    return ascending(torch.where(selection > local, -1, selection))


def in_pages(x: Tensor, cu: Tensor, page: int) -> tuple[Tensor, Tensor]:
    """A packed ``[T, H, D]`` copied into pages, for kernels that read only those.

    Returns:
        pages ``[P, H, page, D]``, heads before tokens, and the page table int32 ``[B, W]``, in
        which unused entries are 0.
    """
    counts = [count_blocks(n, page) for n in lengths(cu).tolist()]
    starts = cu.tolist()
    pages = x.new_zeros(max(sum(counts), 1), x.shape[1], page, x.shape[2])
    table = torch.zeros(len(counts), max([*counts, 1]), dtype=torch.int32, device=x.device)
    first = 0
    for b, count in enumerate(counts):
        rows = x[starts[b] : starts[b + 1]]
        whole = torch.nn.functional.pad(rows, (0, 0, 0, 0, 0, count * page - len(rows)))
        pages[first : first + count] = whole.unflatten(0, (count, page)).transpose(1, 2)
        table[b, :count] = torch.arange(first, first + count, device=x.device)
        first += count
    return pages, table


def flat_pages(page_table: Tensor, k_lens: Tensor, page: int) -> Tensor:
    """Used entries of a page table, request after request, int32 ``[sum of pages]``."""
    counts = [count_blocks(n, page) for n in k_lens.tolist()]
    return torch.cat([page_table[b, :count] for b, count in enumerate(counts)]).to(torch.int32)


def cumulated(lengths_: Tensor) -> Tensor:
    """``[0, n0, n0 + n1, ...]`` int32 of lengths ``[B]``."""
    return torch.nn.functional.pad(lengths_.cumsum(0), (1, 0)).to(torch.int32)


def above_zero(scale: float) -> float:
    """``scale``, where it is put on a maximum instead of on the products.

    Raises:
        ValueError: zero or below, which would make of it no maximum, or no number.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale: wanted a finite number above 0, put on a maximum, got {scale!r}")
    return scale


def why_no_gpu(package: str, majors: Collection[int]) -> str | None:
    """Why a CUDA kernel of ``package`` cannot run here, or None.

    Args:
        package: top-level name of the distribution's module.
        majors: major numbers of the compute capabilities that it is built for.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:  # a folder of that name is no package
        return f"wanted the package {package}, got none"
    built = " or ".join(f"{major}.x" for major in sorted(majors))
    if not torch.cuda.is_available():
        return f"wanted a CUDA device of compute capability {built}, got none"
    major, minor = torch.cuda.get_device_capability()
    if major not in majors:
        return f"wanted a CUDA device of compute capability {built}, got {major}.{minor}"
    return None
