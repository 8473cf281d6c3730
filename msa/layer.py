"""One attention layer of MiniMax-M3 around the operations: hidden states and weights in and out.

What transformers' MiniMax-M3 does between its two residual additions, packed and without a cache:
projections, norm per head, partial rotation, MSA, output projection. Weights have the names of
transformers' ``self_attn``, so a layer of a checkpoint can be handed in as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from msa.checks import require_groups, require_packing, require_positive, require_tensor
from msa.config import MSAConfig
from msa.index_branch import GemmaRMSNorm, IndexBranch, rotary_table, rotate
from msa.operations import Operations, find_operations
from msa.packing import segments


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Sizes of an attention layer; the defaults are MiniMax-M3's.

    Attributes:
        hidden_size: width of the hidden states.
        q_heads: query heads, Hq.
        kv_heads: KV groups, Hkv, which is also the number of index query heads.
        head_dim: channels per head, D.
        rotary_dim: rotated channels, of the main branch and of the index branch.
        theta: base of the rotation.
        eps: of the norms.

    Raises:
        ValueError: a size below one, or query heads that are no multiple of the KV heads.
    """

    hidden_size: int = 6144
    q_heads: int = 64
    kv_heads: int = 4
    head_dim: int = 128
    rotary_dim: int = 64
    theta: float = 5e6
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("hidden_size", "q_heads", "kv_heads", "head_dim", "rotary_dim"):
            require_positive(name, getattr(self, name))
        require_groups(self.q_heads, self.kv_heads)
        if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise ValueError(
                f"rotary_dim: wanted an even number of at most {self.head_dim} channels, "
                f"got {self.rotary_dim}"
            )

    def weight_shapes(self, index_dim: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight."""
        wide, groups, dim = self.hidden_size, self.kv_heads, self.head_dim
        return {
            "q_proj.weight": (self.q_heads * dim, wide),
            "k_proj.weight": (groups * dim, wide),
            "v_proj.weight": (groups * dim, wide),
            "o_proj.weight": (wide, self.q_heads * dim),
            "q_norm.weight": (dim,),
            "k_norm.weight": (dim,),
            "indexer.q_proj.weight": (groups * index_dim, wide),
            "indexer.k_proj.weight": (index_dim, wide),
            "indexer.q_norm.weight": (index_dim,),
            "indexer.k_norm.weight": (index_dim,),
        }


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """What the operations of a layer get; shapes as in :mod:`msa.reference`."""

    q: Tensor
    k: Tensor
    v: Tensor
    q_idx: Tensor
    k_idx: Tensor


def layer_inputs(
    hidden: Tensor, weights: Mapping[str, Tensor], *, cu: Tensor, shape: LayerShape, index_dim: int
) -> LayerInputs:
    """Project, norm and rotate: from hidden states to what the operations get.

    Args:
        hidden: ``[T, hidden_size]``, packed.
        weights: those of :meth:`LayerShape.weight_shapes`.
        cu: int32 ``[B + 1]``.
        shape: of the layer.
        index_dim: Di.

    Raises:
        ValueError: a weight is missing, unknown or of another shape; sequences that do not fit.
    """
    require_tensor("hidden", hidden, ("T", shape.hidden_size))
    require_packing(cu, cu, len(hidden), len(hidden))
    wanted = shape.weight_shapes(index_dim)
    if set(wanted) != set(weights):
        raise ValueError(f"weights: wanted {sorted(wanted)}, got {sorted(weights)}")
    for name, size in wanted.items():
        require_tensor(name, weights[name], size, like=hidden)
    positions = torch.cat([s.positions(hidden.device) for s in segments(cu, cu)])
    cos, sin = rotary_table(
        positions, rotary_dim=shape.rotary_dim, theta=shape.theta, dtype=hidden.dtype
    )

    def heads(name: str, count: int) -> Tensor:
        projected = functional.linear(hidden, weights[f"{name}_proj.weight"])
        return projected.view(len(hidden), count, shape.head_dim)

    def normed(name: str, count: int) -> Tensor:
        norm = GemmaRMSNorm(shape.head_dim, shape.eps)
        norm.weight.data = weights[f"{name}_norm.weight"]
        return rotate(norm(heads(name, count)), cos, sin)

    with torch.device("meta"):
        branch = IndexBranch(
            hidden_size=shape.hidden_size,
            groups=shape.kv_heads,
            index_dim=index_dim,
            rotary_dim=shape.rotary_dim,
            theta=shape.theta,
            eps=shape.eps,
        )
    prefix = "indexer."
    own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    branch.load_state_dict(own, assign=True)
    q_idx, k_idx = branch(hidden, positions)
    return LayerInputs(
        q=normed("q", shape.q_heads),
        k=normed("k", shape.kv_heads),
        v=heads("v", shape.kv_heads),
        q_idx=q_idx,
        k_idx=k_idx,
    )


@torch.no_grad()
def attention_layer(
    hidden: Tensor,
    weights: Mapping[str, Tensor],
    *,
    cu: Tensor,
    shape: LayerShape,
    config: MSAConfig,
    operations: Operations | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The layer, without gradients.

    Args:
        hidden: ``[T, hidden_size]``, packed, normed by the layer's input norm already.
        weights: those of :meth:`LayerShape.weight_shapes`, in the dtype of ``hidden``.
        cu: int32 ``[B + 1]``.
        shape: of the layer.
        config: of MSA.
        operations: object or name of an implementation.

    Returns:
        hidden states ``[T, hidden_size]`` and the selection int32 ``[T, Hkv, k]``.

    Raises:
        ValueError: see :func:`layer_inputs`.
    """
    run = find_operations(operations)
    x = layer_inputs(hidden, weights, cu=cu, shape=shape, index_dim=config.index_dim)
    block = config.block
    scores = run.block_scores(
        x.q_idx, x.k_idx, cu_q=cu, cu_k=cu, block=block, scale=config.index_dim**-0.5
    )
    selection = run.select_blocks(
        scores,
        cu_q=cu,
        cu_k=cu,
        block=block,
        topk=config.topk,
        local_blocks=config.local_blocks,
        sink_blocks=config.sink_blocks,
    )
    out, _ = run.sparse_attention(
        x.q, x.k, x.v, selection, cu_q=cu, cu_k=cu, block=block, scale=shape.head_dim**-0.5
    )
    return functional.linear(out.flatten(1), weights["o_proj.weight"]), selection
