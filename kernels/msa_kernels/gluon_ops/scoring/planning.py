"""Which queries a program of block scores takes: made on the device, so that nothing waits."""

from __future__ import annotations

import torch
from torch import Tensor


def plan_tiles(cu_q: Tensor, cu_k: Tensor, *, low: int, rows: int, tokens: int) -> Tensor:
    """Tiles of consecutive queries, each of one sequence.

    Args:
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        low: the first row that counts.
        rows: how many do.
        tokens: queries of a tile, at most.

    Returns:
        int32 ``[tiles, 4]``: the first query, where its sequence (or what counts of it) ends, what
        turns a packed row into a position, and where the sequence's keys begin. There are
        ``rows // tokens + B`` tiles, which is enough for every split; those that are not needed
        come last and begin at their end.
    """
    sequences = len(cu_q) - 1
    edges = cu_q.long().clamp(low, low + rows)
    starts, ends = edges[:-1], edges[1:]
    needed = (ends - starts + tokens - 1) // tokens
    through = needed.cumsum(0)
    tile = torch.arange(rows // tokens + sequences, device=cu_q.device)
    sequence = torch.searchsorted(through, tile, right=True).clamp_max(max(sequences - 1, 0))
    first = starts[sequence] + (tile - through[sequence] + needed[sequence]) * tokens
    end = ends[sequence]
    keys = cu_k.long()
    shift = keys[sequence + 1] - keys[sequence] - cu_q.long()[sequence + 1]
    plan = torch.stack([first.minimum(end), end, shift, keys[sequence]], 1)
    return plan.to(torch.int32)


def plan_requests(k_lens: Tensor, *, queries: int, tokens: int) -> Tensor:
    """Tiles of the queries of each request of a paged batch.

    Args:
        k_lens: int32 ``[B]``, keys of every request, the newest included.
        queries: of each request.
        tokens: queries of a tile, at most.

    Returns:
        int32 ``[tiles, 4]`` as of :func:`plan_tiles`, with the request in place of its first key.
    """
    each = -(-queries // tokens)
    tile = torch.arange(len(k_lens) * each, device=k_lens.device)
    request = tile // each
    end = (request + 1) * queries
    first = end - queries + tile % each * tokens
    return torch.stack([first, end, k_lens.long()[request] - end, request], 1).to(torch.int32)
