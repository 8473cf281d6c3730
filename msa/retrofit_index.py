"""A trained index branch inside a model of transformers: where it sits, what it reads, its cache.

Each sparse layer's attention module gets an :class:`msa.index_branch.IndexBranch` called
``indexer``, which is its name in transformers' MiniMax-M3. It reads what the layer's own
projections read. Its keys live in the model's cache as further KV heads, in front of which the
model sees its own: so a cache that is copied, cropped, reordered or preallocated takes them along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from msa.index_branch import IndexBranch

#: Attribute of an attention module.
INDEXER = "indexer"


@dataclass(frozen=True, slots=True)
class IndexShape:
    """Sizes of an index branch; the defaults are MiniMax-M3's.

    Attributes:
        index_dim: channels per index head, Di.
        rotary_dim: rotated channels.
        theta: base of the rotation.
        eps: of the norms.
    """

    index_dim: int = 128
    rotary_dim: int = 64
    theta: float = 5e6
    eps: float = 1e-6


def attach_index(model: nn.Module, shape: IndexShape, layers: Iterable[int]) -> None:
    """Give the attention of ``layers`` an index branch with fresh weights, in the layer's dtype.

    Args:
        model: a causal language model of transformers.
        shape: of the branch.
        layers: indices.

    Raises:
        ValueError: there is no such layer, it has an index branch already, or sizes do not fit.
    """
    attentions = _attentions(model)
    if not attentions:
        raise ValueError(
            "model: wanted attention modules with layer_idx and o_proj, as the families of Llama, "
            f"Qwen, Mistral, Gemma and MiniMax have them, got none in {type(model).__name__}"
        )
    config: Any = model.config
    config = config.get_text_config(decoder=True)
    for layer in layers:
        if layer not in attentions:
            raise ValueError(f"layers: wanted some of {sorted(attentions)}, got {layer}")
        attention = attentions[layer]
        if hasattr(attention, INDEXER):
            raise ValueError(f"model: wanted layer {layer} without an index branch, got one")
        branch = IndexBranch(
            hidden_size=config.hidden_size,
            groups=config.num_key_value_heads,
            index_dim=shape.index_dim,
            rotary_dim=shape.rotary_dim,
            theta=shape.theta,
            eps=shape.eps,
        )
        like = next(attention.parameters())
        setattr(attention, INDEXER, branch.to(like))


def index_branches(model: nn.Module) -> dict[int, IndexBranch]:
    """The index branches of ``model`` by layer; empty where it has none."""
    found = {i: getattr(a, INDEXER, None) for i, a in _attentions(model).items()}
    return {i: branch for i, branch in found.items() if isinstance(branch, IndexBranch)}


def index_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the index branches, by their names in the model."""
    inside = f".{INDEXER}."
    return {name: x for name, x in model.state_dict().items() if inside in name}


def load_index(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fill attached index branches with ``weights``, named as in :func:`index_state`.

    Raises:
        ValueError: a weight is missing, unknown or of another shape.
    """
    own = index_state(model)
    if set(own) != set(weights):
        missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
        raise ValueError(f"weights: wanted {len(own)}, missing {missing}, unknown {unknown}")
    for name, x in weights.items():
        if x.shape != own[name].shape:
            raise ValueError(f"{name}: wanted {list(own[name].shape)}, got {list(x.shape)}")
    with torch.no_grad():
        for name, x in weights.items():
            own[name].copy_(x)


def _attentions(model: nn.Module) -> dict[int, nn.Module]:
    """Attention modules by layer: those that transformers' attention functions are called with."""
    named = (m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "o_proj"))
    return {int(m.layer_idx): m for m in named}  # type: ignore[arg-type]


class _CacheWithIndexKeys:
    """A cache that stores index keys beside the keys of one layer, as heads of its shape."""

    def __init__(self, cache: Any, k_idx: Tensor, take: Callable[[Tensor], None]) -> None:  # noqa: ANN401
        self._cache, self._k_idx, self._take = cache, k_idx, take

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._cache, name)

    def update(self, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Store both; returns keys and values ``[B, Hkv, L, D]`` of the model alone."""
        heads, dim = key.shape[1], key.shape[3]
        width = self._k_idx.shape[3]
        more = -(-width // dim)
        padded = nn.functional.pad(self._k_idx, (0, more * dim - width))  # [B, 1, L, more * D]
        as_heads = padded[:, 0].unflatten(2, (more, dim)).transpose(1, 2)  # [B, more, L, D]
        nothing = value.new_zeros((value.shape[0], more, *value.shape[2:]))
        keys, values = self._cache.update(
            torch.cat([key, as_heads.to(key)], 1), torch.cat([value, nothing], 1), *rest, **named
        )
        self._take(keys[:, heads:].transpose(1, 2).flatten(2)[:, None, :, :width])
        return keys[:, :heads], values[:, :heads]


def feed_index(
    model: nn.Module,
    layers: Iterable[int],
    pending: dict[int, tuple[Tensor, Tensor]],
    *,
    wanted: Callable[[], bool],
    detach: Callable[[], bool],
) -> list[RemovableHandle]:
    """Let every index branch read its layer's input before the layer's attention runs.

    Args:
        model: with index branches.
        layers: those that attend sparsely; a branch in any other layer rests.
        pending: receives, by layer, index queries ``[B, Hkv, L, Di]`` and the index keys of all
            tokens so far ``[B, 1, S, Di]``.
        wanted: whether this forward pass uses the index branch.
        detach: whether gradients stop in front of it.

    Returns:
        Handles that take it away again.
    """

    def watch(layer: int, branch: IndexBranch, attention: nn.Module) -> RemovableHandle:
        def before(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:  # noqa: ANN401
            if not wanted():
                return None
            hidden: Tensor = given["hidden_states"] if "hidden_states" in given else args[0]
            positions = given.get("position_ids")
            if positions is None:
                raise ValueError(
                    f"position_ids: wanted them handed to the attention of layer {layer}, got "
                    "none: an index branch cannot be rotated without"
                )
            batch, length = hidden.shape[:2]
            rows = (hidden.detach() if detach() else hidden).flatten(0, 1)
            q_idx, k_idx = branch(rows, positions.expand(batch, -1).reshape(-1))
            q_idx, k_idx = (x.unflatten(0, (batch, length)).transpose(1, 2) for x in (q_idx, k_idx))
            pending[layer] = (q_idx, k_idx)
            cache = given.get("past_key_values")
            if cache is None:
                return None

            def take(every: Tensor) -> None:
                pending[layer] = (q_idx, every)

            return args, {**given, "past_key_values": _CacheWithIndexKeys(cache, k_idx, take)}

        return attention.register_forward_pre_hook(before, with_kwargs=True)

    attentions, branches = _attentions(model), index_branches(model)
    return [watch(i, branches[i], attentions[i]) for i in layers if i in branches]
