"""transformers' own MiniMax-M3 as an implementation: its indexer and its attention layer.

Two ways in. ``model`` runs a whole attention layer with given weights. ``attend`` feeds given index
queries and keys to the released indexer's scoring and selection, past its projections, norms and
rotation, and attends as the model does, under a dense mask. It selects by descending score with
the local block first. Written for reading, not for speed: it builds a mask over all keys.

The release that is installed is tested as it is: transformers 5.12 takes the maximum over the
index heads and so has one selection for all groups (huggingface/transformers#46762).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from msa.calls import check_attention, check_index
from msa.checks import require_budget, require_packing, require_tensor
from msa.config import MSAConfig
from msa.layer import LayerShape
from msa.packing import Segment, segments

CAPABILITIES: dict[str, object] = {
    "dtypes": ["float32", "float16", "bfloat16"],
    "devices": ["cpu", "cuda"],
    "layouts": ["packed"],
    "nan_scores": False,
    "sink_blocks": False,
    "left_padding": False,
    "exact_scores": True,
}
#: Distributions whose code this runs; the record of a run names their versions.
RUNS = ("transformers",)


def unavailable() -> str | None:
    """Why it cannot run here, or None."""
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return "wanted transformers with minimax_m3_vl (5.12 or newer), got none"
    if importlib.util.find_spec("transformers.models.minimax_m3_vl") is None:
        return f"wanted transformers with minimax_m3_vl (5.12 or newer), got {version}"
    return None


def _modelling() -> Any:  # noqa: ANN401 - transformers is untyped
    from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl

    return modeling_minimax_m3_vl


def _text_config(shape: LayerShape, config: MSAConfig) -> Any:  # noqa: ANN401 - transformers is untyped
    from transformers.models.minimax_m3_vl import MiniMaxM3VLTextConfig

    if config.sink_blocks:
        raise ValueError(f"sink_blocks: wanted 0, which is all it knows, got {config.sink_blocks}")
    if config.index_dim < shape.rotary_dim:
        # It cuts one table of angles to the index width, which parts the two halves.
        raise ValueError(
            f"index_dim: wanted at least the {shape.rotary_dim} rotated channels, "
            f"got {config.index_dim}"
        )
    made = MiniMaxM3VLTextConfig(
        vocab_size=2,
        hidden_size=shape.hidden_size,
        intermediate_size=1,
        num_hidden_layers=1,
        num_attention_heads=shape.q_heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.eps,
        # The released rotation reads this factor; ``rotary_dim`` alone would change nothing.
        rope_parameters={
            "rope_type": "default",
            "rope_theta": shape.theta,
            "partial_rotary_factor": shape.rotary_dim / shape.head_dim,
        },
        index_n_heads=shape.kv_heads,
        index_head_dim=config.index_dim,
        index_block_size=config.block,
        index_topk_blocks=config.topk,
        index_local_blocks=config.local_blocks,
        layer_types=["minimax_m3_sparse"],
        mlp_layer_types=["dense"],
    )
    made._attn_implementation = "eager"
    return made


def _packed_selection(found: Tensor, groups: int, topk: int) -> Tensor:
    """Ids ``[1, Hkv, T, at most topk]`` of the model as int32 ``[T, Hkv, topk]``.

    Without the second axis they are one selection, which every group then has.
    """
    every = found if found.ndim == 4 else found[:, None].expand(-1, groups, -1, -1)
    ids = every[0].transpose(0, 1).int()
    return nn.functional.pad(ids, (0, topk - ids.shape[-1]), value=-1)


@torch.no_grad()
def model(
    hidden: Tensor,
    weights: Mapping[str, Tensor],
    *,
    cu: Tensor,
    shape: LayerShape,
    config: MSAConfig,
) -> tuple[Tensor, Tensor]:
    """A sparse attention layer of MiniMax-M3; arguments and results of ``msa.layer``.

    Args:
        hidden: ``[T, hidden_size]``, packed.
        weights: those of :meth:`msa.layer.LayerShape.weight_shapes`.
        cu: int32 ``[B + 1]``.
        shape: of the layer.
        config: of MSA; sink blocks are not known to it.

    Returns:
        hidden states ``[T, hidden_size]`` and the selection int32 ``[T, Hkv, k]``.

    Raises:
        ValueError: sink blocks, an index narrower than the rotation, sequences that do not fit.
        RuntimeError: weights that do not fit.
    """
    require_tensor("hidden", hidden, ("T", shape.hidden_size))
    require_packing(cu, cu, len(hidden), len(hidden))
    modelling, text = _modelling(), _text_config(shape, config)
    layer = modelling.MiniMaxM3VLAttention(text, 0).to(hidden.device, hidden.dtype).eval()
    layer.load_state_dict(dict(weights))
    rotary = modelling.MiniMaxM3VLRotaryEmbedding(text).to(hidden.device)
    selections: list[Tensor] = []
    layer.indexer.register_forward_hook(lambda _m, _i, found: selections.append(found))
    outs = []
    for s in segments(cu, cu):
        states = hidden[s.k_start : s.k_stop][None]
        positions = s.positions(hidden.device)[None]
        out, _ = layer(states, rotary(states, positions), None, position_ids=positions)
        outs.append(out[0])
    chosen = [_packed_selection(found, shape.kv_heads, config.topk) for found in selections]
    return torch.cat(outs), torch.cat(chosen)


class _Given(nn.Module):
    """Stands for a projection: whatever comes in, the given tensor goes out."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given = given

    def forward(self, _: Tensor) -> Tensor:
        return self.given


def _select(indexer: Any, s: Segment, q_idx: Tensor, k_idx: Tensor) -> Tensor:  # noqa: ANN401 - transformers is untyped
    """Run the indexer behind its projections; ids as :func:`_packed_selection` wants them."""
    queries, keys = q_idx[s.q_start : s.q_stop], k_idx[s.k_start : s.k_stop]
    dim = queries.shape[-1]
    indexer.q_proj, indexer.k_proj = (
        _Given(queries.flatten(1)[None]),
        _Given(keys[None, -s.q_len :]),
    )
    indexer.q_norm, indexer.k_norm = nn.Identity(), nn.Identity()
    # The cache hands out the whole history, as it would when a chunk arrives.
    cache = SimpleNamespace(
        layers=[SimpleNamespace(update_index=lambda _: keys.transpose(0, 1)[None])]
    )
    states = queries.new_empty((1, s.q_len, 1))
    one, zero = queries.new_ones((1, s.q_len, dim)), queries.new_zeros((1, s.q_len, dim))
    found: Tensor = indexer(states, (one, zero), cache, s.positions(q_idx.device)[None])
    return found


@torch.no_grad()
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
    """The pipeline with transformers' selection and eager attention; shapes as in the contract.

    Raises:
        ValueError: sink blocks, several index key heads, shapes that do not fit.
    """
    del index_scale  # transformers ranks unscaled scores, to the same selection
    check_index(q_idx, k_idx, cu_q, cu_k, block)
    require_budget(topk, local_blocks, sink_blocks)
    if k_idx.shape[1] != 1:
        raise ValueError(f"k_idx: wanted 1 head shared by all groups, got {k_idx.shape[1]}")
    groups = q_idx.shape[1]
    shape = LayerShape(
        hidden_size=1, q_heads=q.shape[1], kv_heads=groups, head_dim=q.shape[2], rotary_dim=2
    )
    config = MSAConfig(block, topk, local_blocks, sink_blocks, q_idx.shape[2])
    modelling, text = _modelling(), _text_config(shape, config)
    with torch.device("meta"):
        indexer = modelling.MiniMaxM3VLIndexer(text, 0)
    repeats = SimpleNamespace(num_key_value_groups=q.shape[1] // groups, training=False)
    selection = q_idx.new_full((len(q), groups, topk), -1, dtype=torch.int32)
    check_attention(q, k, v, selection, cu_q, cu_k, block)
    out = torch.zeros_like(q)
    for s in segments(cu_q, cu_k):
        if not s.q_len:
            continue
        rows, keys = slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop)
        found = _select(indexer, s, q_idx, k_idx)
        selection[rows] = _packed_selection(found, groups, topk)
        mask = indexer.build_block_mask(
            found, None, s.k_len, q.dtype, q.device, s.positions(q.device)[None]
        )
        heads = [x.transpose(0, 1)[None] for x in (q[rows], k[keys], v[keys])]
        out[rows] = modelling.eager_attention_forward(repeats, *heads, mask, scaling=scale)[0][0]
    return out, selection
