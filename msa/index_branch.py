"""The index branch: two projections, a norm per head, a partial rotation.

Facts are those of MiniMax-M3 as transformers runs it from 5.13 on (METHOD: the paper, section 3):

- one index query head per KV group, ONE index key head for all groups, no value, no output;
- RMS norm per head in float32 with the gain ``1 + w`` (a stored weight of zero is no gain);
- rotation of the first ``rotary_dim`` channels in halves (channel i pairs with i + rotary_dim / 2),
  base 5e6, after the norm; the angle table is computed in float32, then cast to the layer's dtype;
- block scores are raw dot products there; ours are scaled, which never changes the order.

The state dict has the names of transformers' ``self_attn.indexer``: ``q_proj.weight``,
``k_proj.weight``, ``q_norm.weight``, ``k_norm.weight``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msa.checks import require_positive, require_tensor


class GemmaRMSNorm(nn.Module):
    """RMS norm over the last axis with the gain ``1 + weight``, computed in float32.

    Attributes:
        weight: ``[dim]``, zero at the start: the gain is then one.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[..., dim]``; dtype and shape stay."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * (1.0 + self.weight.float())).to(x.dtype)


def rotary_table(
    positions: Tensor, *, rotary_dim: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position.

    Args:
        positions: ints ``[T]``, counted from the start of each sequence.
        rotary_dim: rotated channels, an even number.
        theta: base of the frequencies ``theta ** (-2 i / rotary_dim)``.
        dtype: dtype of the table; angles are float32 whatever it is.

    Returns:
        Two tensors ``[T, rotary_dim / 2]``.

    Raises:
        ValueError: ``rotary_dim`` is odd or below two.
    """
    require_positive("rotary_dim", rotary_dim)
    if rotary_dim % 2:
        raise ValueError(f"rotary_dim: wanted an even number of channels, got {rotary_dim}")
    exponent = torch.arange(0, rotary_dim, 2, device=positions.device).float() / rotary_dim
    angles = positions.float()[:, None] * (1.0 / theta**exponent)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first channels of every head in halves; the rest pass through.

    Args:
        x: ``[T, H, D]``.
        cos: ``[T, r]``; channels i and i + r are one plane.
        sin: ``[T, r]``.

    Raises:
        ValueError: a head has fewer than ``2 r`` channels.
    """
    half = cos.shape[-1]
    if x.shape[-1] < 2 * half:
        raise ValueError(f"x: wanted at least {2 * half} channels to rotate, got {x.shape[-1]}")
    cos, sin = cos[:, None], sin[:, None]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


class IndexBranch(nn.Module):
    """Normed and rotated index queries and keys from hidden states.

    Args:
        hidden_size: width of the hidden states.
        groups: KV groups, one index query head each.
        index_dim: channels per index head, Di.
        rotary_dim: rotated channels.
        theta: base of the rotation.
        eps: of the norms.

    Raises:
        ValueError: a size below one, or more rotated channels than there are.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        groups: int,
        index_dim: int = 128,
        rotary_dim: int = 64,
        theta: float = 5e6,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        for name, value in (
            ("hidden_size", hidden_size),
            ("groups", groups),
            ("index_dim", index_dim),
            ("rotary_dim", rotary_dim),
        ):
            require_positive(name, value)
        if rotary_dim % 2 or rotary_dim > index_dim:
            raise ValueError(
                f"rotary_dim: wanted an even number of at most {index_dim} channels, "
                f"got {rotary_dim}"
            )
        self.groups = groups
        self.index_dim = index_dim
        self.rotary_dim = rotary_dim
        self.theta = theta
        self.q_proj = nn.Linear(hidden_size, groups * index_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, index_dim, bias=False)
        self.q_norm = GemmaRMSNorm(index_dim, eps)
        self.k_norm = GemmaRMSNorm(index_dim, eps)

    def forward(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Index queries ``[T, groups, Di]`` and index keys ``[T, 1, Di]``.

        Args:
            hidden: ``[T, hidden_size]``, packed.
            positions: ints ``[T]``, counted from the start of each sequence.

        Raises:
            ValueError: shapes that do not fit.
        """
        require_tensor("hidden", hidden, ("T", self.q_proj.in_features))
        if tuple(positions.shape) != (len(hidden),):
            raise ValueError(f"positions: wanted [{len(hidden)}], got {list(positions.shape)}")
        cos, sin = rotary_table(
            positions, rotary_dim=self.rotary_dim, theta=self.theta, dtype=hidden.dtype
        )
        q_idx = self.q_norm(self.q_proj(hidden).view(-1, self.groups, self.index_dim))
        k_idx = self.k_norm(self.k_proj(hidden).view(-1, 1, self.index_dim))
        return rotate(q_idx, cos, sin), rotate(k_idx, cos, sin)
