"""Block scores of the index branch, key blocks outermost."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import checks
from msa.packing import block_columns, count_blocks, segments

#: Query rows scored at a time.
_ROWS = 256
#: Key blocks scored at a time.
_BLOCKS = 4


def working_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64, float32 for everything else."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def block_scores(
    q_idx: Tensor, k_idx: Tensor, *, cu_q: Tensor, cu_k: Tensor, block: int, scale: float
) -> Tensor:
    """The best visible token score of every key block.

    Args:
        q_idx: index queries ``[Tq, Hkv, Di]``.
        k_idx: index keys ``[Tk, 1 or Hkv, Di]``.
        cu_q: int32 ``[B + 1]``.
        cu_k: int32 ``[B + 1]``.
        block: tokens per block.
        scale: factor on the token scores, ``Di ** -0.5`` in the paper.

    Returns:
        float32 ``[Tq, Hkv, NB]``; -inf where a block has no visible token.
    """
    checks.check_index(q_idx, k_idx, cu_q, cu_k, block)
    groups, columns = q_idx.shape[1], block_columns(cu_k, block)
    scores = q_idx.new_full((len(q_idx), groups, columns), -torch.inf, dtype=torch.float32)
    for s in segments(cu_q, cu_k):
        keys = k_idx[s.k_start : s.k_stop]
        for start in range(s.q_start, s.q_stop, _ROWS):
            stop = min(start + _ROWS, s.q_stop)
            first = s.first_position + start - s.q_start
            rows = score_rows(q_idx[start:stop], keys, first, block, scale)
            scores[start:stop, :, : rows.shape[2]] = rows
    return scores


def score_rows(q_idx: Tensor, keys: Tensor, first: int, block: int, scale: float) -> Tensor:
    """Scores of consecutive queries of one sequence over the blocks they see.

    Args:
        q_idx: ``[n, Hkv, Di]``.
        keys: index keys of the sequence ``[S, 1 or Hkv, Di]``.
        first: position of the first query.
        block: tokens per block.
        scale: factor on the token scores.

    Returns:
        float32 ``[n, Hkv, nb]``, nb the blocks visible to the last query.
    """
    count, groups, dim = q_idx.shape
    seen = first + count
    columns = count_blocks(seen, block)
    work = working_dtype(q_idx)
    heads = keys.shape[1]
    position = torch.arange(first, seen, device=q_idx.device)
    out = q_idx.new_empty((columns, count, groups), dtype=torch.float32)
    for head in range(heads):
        mine = q_idx if heads == 1 else q_idx[:, head : head + 1]
        queries = (mine.to(work) * scale).reshape(-1, dim).T.contiguous()  # [Di, n * groups]
        for b in range(0, columns, _BLOCKS):
            last = min(b + _BLOCKS, columns)
            tokens = keys[b * block : min(last * block, seen), head].to(work)
            tile = (tokens @ queries).view(len(tokens), count, -1)
            if b * block + len(tokens) > first + 1:
                key_at = torch.arange(b * block, b * block + len(tokens), device=q_idx.device)
                tile.masked_fill_((key_at[:, None] > position)[..., None], -torch.inf)
            spare = (last - b) * block - len(tokens)
            if spare:
                tile = torch.nn.functional.pad(tile, (0, 0, 0, 0, 0, spare), value=-torch.inf)
            best = tile.view(last - b, block, count, -1).amax(1).float()
            if heads == 1:
                out[b:last] = best
            else:
                out[b:last, :, head] = best[..., 0]
    return out.permute(1, 2, 0)
