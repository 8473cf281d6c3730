"""An attention layer of MSA in float64, a row at a time, written from the paper and apart from msa.

The method (paper, section 3) with MiniMax-M3's index branch: RMS norm per head with the gain
``1 + w``, rotation in halves of the first channels, one index key head for all groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msa_suites.correctness.bruteforce import chosen_blocks

#: A rotation of heads ``[T, H, D]``.
Turn = Callable[[Tensor, "Shape"], Tensor]
#: Rows whose last kept and first dropped score are closer than this may go either way.
MARGIN = 1e-4


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the layer under test: small, but every size differs from every other."""

    hidden: int = 48
    Hq: int = 6
    Hkv: int = 2
    D: int = 32
    Di: int = 16
    rotary: int = 8
    theta: float = 1e4
    eps: float = 1e-6
    block: int = 16
    topk: int = 5
    local_blocks: int = 2
    sink_blocks: int = 1

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Weights by their names in a MiniMax-M3 checkpoint."""
        return {
            "q_proj.weight": (self.Hq * self.D, self.hidden),
            "k_proj.weight": (self.Hkv * self.D, self.hidden),
            "v_proj.weight": (self.Hkv * self.D, self.hidden),
            "o_proj.weight": (self.hidden, self.Hq * self.D),
            "q_norm.weight": (self.D,),
            "k_norm.weight": (self.D,),
            "indexer.q_proj.weight": (self.Hkv * self.Di, self.hidden),
            "indexer.k_proj.weight": (self.Di, self.hidden),
            "indexer.q_norm.weight": (self.Di,),
            "indexer.k_norm.weight": (self.Di,),
        }


@dataclass(frozen=True, slots=True)
class Rows:
    """What is expected of the rows of one sequence.

    Attributes:
        out: attention before the output projection, float64 ``[T, Hq, D]``.
        hidden: after it, ``[T, hidden]``.
        decided: bool ``[T, Hkv]``, no score close to the edge of the selection.
        selection: int64 ``[T, Hkv, topk]``, ascending, then -1.
    """

    out: Tensor
    hidden: Tensor
    decided: Tensor
    selection: Tensor

    def last(self, count: int) -> Rows:
        """The newest ``count`` rows."""
        parts = (self.out, self.hidden, self.decided, self.selection)
        return Rows(*(part[-count:] for part in parts))


def draw_weights(shape: Shape, seed: int) -> dict[str, Tensor]:
    """Random float32 weights; norms far from zero, where ``1 + w`` would not show."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(size, generator=draw) * (0.5 if len(size) == 1 else size[-1] ** -0.5)
        for name, size in shape.weight_shapes().items()
    }


def draw_hidden(shape: Shape, tokens: int, seed: int) -> Tensor:
    """Float32 ``[tokens, hidden]``."""
    return torch.randn(tokens, shape.hidden, generator=torch.Generator().manual_seed(seed))


def _heads(hidden: Tensor, weights: Mapping[str, Tensor], name: str, count: int) -> Tensor:
    product = hidden.double() @ weights[f"{name}_proj.weight"].double().T
    return product.view(len(hidden), count, -1)


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    root = (x.square().mean(-1, keepdim=True) + eps).sqrt()
    return x / root * (1 + weight.double())


def rotated(x: Tensor, shape: Shape) -> Tensor:
    """Channel i and i + rotary / 2 as one complex number, turned by position * frequency."""
    half = shape.rotary // 2
    frequency = shape.theta ** (-torch.arange(half).double() * 2 / shape.rotary)
    angle = torch.arange(len(x)).double()[:, None, None] * frequency
    turned = torch.complex(x[..., :half], x[..., half : 2 * half]) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([turned.real, turned.imag, x[..., 2 * half :]], -1)


def _turned_heads(
    hidden: Tensor, weights: Mapping[str, Tensor], shape: Shape, name: str, count: int, turn: Turn
) -> Tensor:
    heads = _heads(hidden, weights, name, count)
    return turn(_normed(heads, weights[f"{name}_norm.weight"], shape.eps), shape)


def index_heads(
    hidden: Tensor, weights: Mapping[str, Tensor], shape: Shape, turn: Turn = rotated
) -> tuple[Tensor, Tensor]:
    """Index queries ``[T, Hkv, Di]`` and keys ``[T, Di]`` of one sequence."""
    q_idx = _turned_heads(hidden, weights, shape, "indexer.q", shape.Hkv, turn)
    return q_idx, _turned_heads(hidden, weights, shape, "indexer.k", 1, turn)[:, 0]


def choose(queries: Tensor, keys: Tensor, shape: Shape) -> list[tuple[list[float], list[int]]]:
    """Of every group: the best score of each block, and the blocks that the newest token keeps.

    Args:
        queries: index queries of the newest token ``[Hkv, Di]``.
        keys: index keys so far ``[t + 1, Di]``.
        shape: of the layer.
    """
    score = queries @ keys.T * shape.Di**-0.5
    best = torch.stack([part.amax(1) for part in score.split(shape.block, 1)], 1).tolist()
    forced = shape.local_blocks, shape.sink_blocks
    newest = len(keys) - 1
    return [(row, chosen_blocks(row, newest, shape.block, shape.topk, *forced)) for row in best]


def layer(hidden: Tensor, weights: Mapping[str, Tensor], shape: Shape) -> Rows:
    """One sequence ``[T, hidden]`` through the layer."""
    q = _turned_heads(hidden, weights, shape, "q", shape.Hq, rotated)
    k = _turned_heads(hidden, weights, shape, "k", shape.Hkv, rotated)
    v = _heads(hidden, weights, "v", shape.Hkv)
    q_idx, k_idx = index_heads(hidden, weights, shape)
    tokens, heads = len(hidden), shape.Hq // shape.Hkv
    out = torch.zeros(tokens, shape.Hq, shape.D, dtype=torch.float64)
    selection = torch.full((tokens, shape.Hkv, shape.topk), -1)
    decided = torch.ones(tokens, shape.Hkv, dtype=torch.bool)
    for t in range(tokens):
        for g, (best, kept) in enumerate(choose(q_idx[t], k_idx[: t + 1], shape)):
            selection[t, g, : len(kept)] = torch.tensor(kept)
            decided[t, g] = is_decided(best, kept, shape)
            seen = torch.tensor([s for s in range(t + 1) if s // shape.block in kept])
            mine = slice(g * heads, (g + 1) * heads)
            weight = torch.softmax(q[t, mine] @ k[seen, g].T * shape.D**-0.5, -1)
            out[t, mine] = weight @ v[seen, g]
    return Rows(out, out.flatten(1) @ weights["o_proj.weight"].double().T, decided, selection)


def is_decided(scores: Sequence[float], kept: Sequence[int], shape: Shape) -> bool:
    """Whether no score of a block is close to the edge of the selection."""
    free = range(shape.sink_blocks, len(scores) - shape.local_blocks)
    chosen = [scores[b] for b in kept if b in free]
    dropped = [scores[b] for b in range(len(scores)) if b not in kept]
    return not chosen or not dropped or min(chosen) - max(dropped) > MARGIN
