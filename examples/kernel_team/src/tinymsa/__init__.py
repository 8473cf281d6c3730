"""A team's own MSA: one function, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

__version__ = "1.0"
#: What it promises; msa-bench asks for nothing else.
CAPABILITIES = {
    "dtypes": ["float32"],
    "devices": ["cpu"],
    "nan_scores": False,
    "tie_rule": "",
}


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_idx: Tensor,
    k_idx: Tensor,
    *,
    cu_q: Tensor,
    cu_k: Tensor,
    block: int,
    topk: int,
    local_blocks: int = 1,
    sink_blocks: int = 0,
    scale: float,
    index_scale: float,
) -> tuple[Tensor, Tensor]:
    """MiniMax Sparse Attention over packed sequences: (out, selection)."""
    out = torch.zeros_like(q)
    selection = torch.full((len(q), k.shape[1], topk), -1, dtype=torch.int32)
    starts_q, starts_k = cu_q.tolist(), cu_k.tolist()
    for b in range(len(starts_q) - 1):
        rows, keys = slice(*starts_q[b : b + 2]), slice(*starts_k[b : b + 2])
        count, tokens = rows.stop - rows.start, keys.stop - keys.start
        if not count:
            continue
        position = torch.arange(tokens - count, tokens)
        scores = score_blocks(q_idx[rows], k_idx[keys], position, block) * index_scale
        chosen = select(scores, position // block, topk, local_blocks, sink_blocks)
        selection[rows, :, : chosen.shape[-1]] = chosen
        for g in range(k.shape[1]):
            heads = slice(g * q.shape[1] // k.shape[1], (g + 1) * q.shape[1] // k.shape[1])
            out[rows, heads] = attend_group(
                q[rows, heads], k[keys, g], v[keys, g], chosen[:, g], position, block, scale
            )
    return out, selection


def score_blocks(q_idx: Tensor, k_idx: Tensor, position: Tensor, block: int) -> Tensor:
    """The best visible token of each block, ``[n, G, NB]``."""
    tokens = len(k_idx)
    scores = torch.einsum("ngd,sd->ngs", q_idx, k_idx[:, 0])
    seen = torch.arange(tokens) <= position[:, None]
    scores = scores.masked_fill(~seen[:, None], -torch.inf)
    padded = torch.nn.functional.pad(scores, (0, -tokens % block), value=-torch.inf)
    return padded.unflatten(-1, (-1, block)).amax(-1)


def select(scores: Tensor, local: Tensor, topk: int, local_blocks: int, sink_blocks: int) -> Tensor:
    """Ids ``[n, G, at most topk]``, the -1 last."""
    column = torch.arange(scores.shape[-1])
    forced = (column < sink_blocks) | (column > local[:, None] - local_blocks)
    seen = column <= local[:, None]
    ranked = scores.masked_fill((forced & seen)[:, None], torch.inf)
    ranked = ranked.masked_fill(~seen[:, None], -torch.inf)
    best = ranked.topk(min(topk, scores.shape[-1]), dim=-1)
    return torch.where(best.values == -torch.inf, -1, best.indices).int()


def attend_group(
    q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, position: Tensor, block: int, scale: float
) -> Tensor:
    """Attention of one group's heads over its selection, ``[n, R, D]``, a block at a time."""
    top = q.new_full(q.shape[:2], -torch.inf)
    total, out = q.new_zeros(q.shape[:2]), torch.zeros_like(q)
    for b in range(-(-len(k) // block)):
        rows = (chosen == b).any(-1).nonzero()[:, 0]
        if not len(rows):
            continue
        keys = slice(b * block, min((b + 1) * block, len(k)))
        seen = torch.arange(keys.start, keys.stop) <= position[rows, None]
        logits = torch.einsum("nrd,sd->nrs", q[rows], k[keys]) * scale
        logits = logits.masked_fill(~seen[:, None], -torch.inf)
        newest = torch.maximum(top[rows], logits.amax(-1))
        weight = (logits - newest[..., None]).exp()
        before = (top[rows] - newest).exp()
        total[rows] = total[rows] * before + weight.sum(-1)
        values = v[keys].masked_fill(~seen.any(0)[:, None], 0.0)
        part = torch.einsum("nrs,sd->nrd", weight, values)
        out[rows] = out[rows] * before[..., None] + part
        top[rows] = newest
    return out / total[..., None]
