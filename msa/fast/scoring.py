"""Block scores of the index branch, key blocks outermost."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import calls, checks
from msa.checks import require_descale
from msa.fast.threads import for_each
from msa.packing import Segment, block_columns, count_blocks, segments
from msa.quantized import NARROW, decode

#: Columns of a score tile (queries times groups) and its elements. With fewer, larger calls threads
#: wait less for the interpreter than a tile in the L2 cache would save.
_TILE_COLUMNS = 512
_TILE = 512 * 1024
#: Token scores below which threads cost more than they bring.
_WORTH_THREADS = 1 << 22


def working_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64, float32 for everything else."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def score_chunks(segment: Segment, groups: int, block: int) -> list[tuple[int, int]]:
    """Row ranges ``(start, stop)`` of a segment that are scored together, cut between blocks."""
    rows = max(_TILE_COLUMNS // groups // block, 1) * block
    return cut_rows(segment, rows)


def cut_rows(segment: Segment, rows: int) -> list[tuple[int, int]]:
    """Row ranges of a segment whose positions stay between multiples of ``rows``."""
    offset = segment.q_start - segment.first_position  # row = position + offset
    first = segment.first_position // rows * rows
    edges = range(first, segment.k_len if segment.q_len else first, rows)
    return [
        (max(at + offset, segment.q_start), min(at + rows + offset, segment.q_stop)) for at in edges
    ]


@torch.no_grad()
def block_scores(
    q_idx: Tensor,
    k_idx: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    scale: float,
    q_idx_descale: Tensor | None = None,
    k_idx_descale: Tensor | None = None,
) -> Tensor:
    """The best visible token score of every key block. Not differentiable.

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the token scores, ``Di ** -0.5`` in the paper.
        q_idx_descale: float32 ``[Hkv]``, factors of E4M3 index queries; 1 if left out.
        k_idx_descale: float32 ``[1 or Hkv]``, those of the index keys; of NVFP4 its scales.

    Returns:
        float32 ``[Tq, Hkv, NB]``; -inf where a block has no visible token.
    """
    calls.check_index(q_idx, k_idx, cu_q, cu_k, block, packed=True)
    checks.require_scale("scale", scale)
    q_idx, k_idx = decode_index(q_idx, k_idx, q_idx_descale, k_idx_descale)
    groups, columns = q_idx.shape[1], block_columns(cu_k, block)
    scores = q_idx.new_full((len(q_idx), groups, columns), -torch.inf, dtype=torch.float32)
    for s in segments(cu_q, cu_k):
        keys = index_keys(k_idx[s.k_start : s.k_stop])
        offset = s.first_position - s.q_start

        def fill(rows: tuple[int, int], keys: Tensor = keys, offset: int = offset) -> None:
            start, stop = rows
            part = score_rows(q_idx[start:stop], keys, start + offset, block, scale)
            scores[start:stop, :, : part.shape[2]] = part

        spread = q_idx.device.type == "cpu" and s.q_len * s.k_len * groups > _WORTH_THREADS
        for_each(fill, score_chunks(s, groups, block), spread=spread)
    return scores


def decode_index(
    q_idx: Tensor, k_idx: Tensor, q_idx_descale: Tensor | None, k_idx_descale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Index queries and keys, both in the working dtype where one was narrow."""
    wide = working_dtype(q_idx)
    if k_idx.dtype in NARROW and q_idx.dtype not in NARROW:
        require_descale("q_idx_descale", q_idx_descale, q_idx, axis=1)
        q_idx, q_idx_descale = q_idx.to(wide), None
    return (
        decode("q_idx", q_idx, q_idx_descale, axis=1, dtype=wide),
        decode("k_idx", k_idx, k_idx_descale, axis=1, dtype=wide),
    )


def index_keys(k_idx: Tensor) -> Tensor:
    """Index keys ``[S, H, Di]`` as ``[H, S, Di]`` in the working dtype, for :func:`score_rows`."""
    return k_idx.to(working_dtype(k_idx)).transpose(0, 1).contiguous()


def score_rows(q_idx: Tensor, keys: Tensor, first: int, block: int, scale: float) -> Tensor:
    """Scores of consecutive queries of one sequence over the blocks they see.

    Args:
        q_idx: ``[n, Hkv, Di]``.
        keys: of the sequence ``[1 or Hkv, S, Di]``, in the working dtype.
        first: position of the first query.
        block: tokens per block.
        scale: factor on the token scores.

    Returns:
        float32 ``[n, Hkv, nb]``, contiguous, nb the blocks visible to the last query.
    """
    count, groups, dim = q_idx.shape
    heads = len(keys)
    columns = count_blocks(first + count, block)
    best = keys.new_empty((columns, heads, count * (groups // heads)))
    for head in range(heads):
        mine = q_idx if heads == 1 else q_idx[:, head : head + 1]
        queries = (mine.to(keys.dtype) * scale).reshape(-1, dim).T.contiguous()  # [Di, n * g]
        _score_visible(queries, keys[head], (first + 1) // block, block, best[:, head])
        _score_partly(queries, keys[head], first, count, block, best[:, head])
    return best.view(columns, heads, count, -1).permute(2, 1, 3, 0).flatten(1, 2).float()


def _score_visible(queries: Tensor, keys: Tensor, full: int, block: int, best: Tensor) -> None:
    """Blocks that every query sees whole: a product and a maximum, no mask."""
    wide = queries.shape[1]
    step = min(max(_TILE // wide // block, 1), full)
    if not step:
        return
    whole = queries.new_empty((step * block, wide))
    whole_blocks = whole.view(step, block, wide)
    tokens = keys[: full * block].split(step * block)
    for part, found in zip(tokens, best[:full].split(step), strict=True):
        tile, blocks = whole, whole_blocks
        if len(part) < len(whole):
            tile, blocks = whole[: len(part)], whole_blocks[: len(found)]
        torch.mm(part, queries, out=tile)
        torch.amax(blocks, 1, out=found)


def _score_partly(
    queries: Tensor, keys: Tensor, first: int, count: int, block: int, best: Tensor
) -> None:
    """The newest blocks: queries before a block see nothing of it, those inside it a part."""
    each = queries.shape[1] // count  # columns of a query
    stop = first + count
    for b in range((first + 1) // block, len(best)):
        start, end = b * block, min((b + 1) * block, stop)
        before, inside = max(start - first, 0), min(end - first, count)
        tile = keys[start:end] @ queries[:, before * each :]  # [tokens, columns]
        token = torch.arange(start, end, device=keys.device)
        query = torch.arange(first + before, first + inside, device=keys.device)
        hidden = token[:, None] > query.repeat_interleave(each)
        tile[:, : hidden.shape[1]].masked_fill_(hidden, -torch.inf)
        best[b, : before * each] = -torch.inf
        torch.amax(tile, 0, out=best[b, before * each :])
