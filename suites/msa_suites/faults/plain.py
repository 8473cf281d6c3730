"""MSA's attention written plainly, for faults that need another rule of what is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from msa_suites.faults.table import Given

#: What a row sees: (positions [n, 1], tokens [S], block) -> bool [n, S].
Rule = Callable[[Tensor, Tensor, int], Tensor]
#: Softmax: (logits [n, H, S], kept [n, H, S]) -> (weights, LSE).
Weigh = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def causal(position: Tensor, token: Tensor, block: int) -> Tensor:
    """The right rule."""
    del block
    return token <= position


def weigh(logits: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The right softmax."""
    logits = logits.masked_fill(~kept, -torch.inf)
    lse = logits.logsumexp(-1)
    return torch.exp(logits - lse.nan_to_num(neginf=0.0)[..., None]), lse


def attend(
    tensors: Sequence[Tensor],
    given: Mapping[str, Given],
    *,
    rule: Rule = causal,
    softmax: Weigh = weigh,
    add: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
    top_left: bool = False,
) -> tuple[Tensor, Tensor]:
    """``sparse_attention`` of its tensors and the rest of its arguments; with other parts, wrong.

    All tokens at once.
    """
    from msa.packing import segments

    q, k, v, selection = tensors
    block, scale = given["block"], given["scale"]
    out, lse = torch.zeros_like(q), q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)
    heads = q.shape[1] // k.shape[1]
    for s in segments(given["cu_q"], given["cu_k"]):
        rows, keys = slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop)
        token = torch.arange(s.k_len)
        position = (torch.arange(s.q_len) + (0 if top_left else s.first_position))[:, None]
        for g in range(k.shape[1]):
            mine = slice(g * heads, (g + 1) * heads)
            chosen = (selection[rows, g, :, None] == token // block).any(1)  # [n, S]
            kept = (chosen & rule(position, token, block))[:, None].expand(-1, heads, -1)
            seen = kept.any(0).any(0)[:, None]
            key, value = (x[keys, g].float().masked_fill(~seen, 0.0) for x in (k, v))
            weight, sums = softmax(q[rows, mine].float() @ key.T * scale, kept)
            out[rows, mine], lse[rows, mine] = add(weight, value).to(q.dtype), sums
    return out, lse


def token_scores(q_idx: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Float32 ``[n, Hkv, S]`` of index queries ``[n, Hkv, Di]`` and keys ``[1 or Hkv, S, Di]``."""
    wide = keys.expand(q_idx.shape[1], -1, -1).float()
    return torch.einsum("ngd,gsd->ngs", q_idx.float(), wide) * scale


def pooled(
    token: Tensor, first: int, block: int, pool: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Block scores ``[n, Hkv, nb]`` of token scores; ``pool(part, seen)`` of one block."""
    count, _, tokens = token.shape
    columns = -(-(first + count) // block)
    seen = torch.arange(tokens) <= (first + torch.arange(count))[:, None]
    parts = []
    for b in range(columns):
        at = slice(b * block, (b + 1) * block)
        parts.append(pool(token[..., at], seen[:, None, at].expand_as(token[..., at])))
    return torch.stack(parts, -1)


def best(part: Tensor, seen: Tensor) -> Tensor:
    """The right pooling."""
    return part.masked_fill(~seen, -torch.inf).amax(-1)


def everything(selection: Tensor, arguments: dict[str, Given]) -> Tensor:
    """The selection of all blocks, of the shape ``[n, Hkv, nb]``."""
    longest = int((arguments["cu_k"][1:] - arguments["cu_k"][:-1]).max())
    columns = max(-(-longest // arguments["block"]), 1)
    return torch.arange(columns, dtype=torch.int32).expand(*selection.shape[:2], -1)
