"""The two functions that the retrofit registers with transformers, and what they look up."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from msa.alignment import Alignment, attend_sparse, visible_blocks
from msa.operations import Operations
from msa.padding import Packing, pack, plan_packing, unpack
from msa.recording import Recorder
from msa.retrofit_dense import attend_dense, build_local_mask, build_mask
from msa.retrofit_settings import TRAINED, RetrofitSettings
from msa.scorers import ALL_HEADS, find_scorer


@dataclass(slots=True)
class Active:
    """What a config cannot hold: objects. Found by ``config.msa_retrofit``."""

    operations: Operations
    recorder: Recorder | None
    before: str
    alignment: Alignment | None = None
    #: By layer, what its index branch made of this forward pass.
    index: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    hooks: list[RemovableHandle] = field(default_factory=list)
    planned: tuple[weakref.ref[Tensor], tuple[int, int], Packing] | None = None

    def packing(self, mask: Tensor | None, query: Tensor, key: Tensor) -> Packing:
        """All layers of one forward pass share a mask, so its packing is planned once."""
        slots = (query.shape[2], key.shape[2])
        if mask is not None and self.planned is not None:
            seen, shape, plan = self.planned
            if seen() is mask and shape == slots:
                return plan
        plan = plan_packing(mask, query.shape[0], *slots, query)
        self.planned = None if mask is None else (weakref.ref(mask), slots, plan)
        return plan


ACTIVE: dict[str, Active] = {}


def has_own_mask(config: Any, layer: int, window: object) -> bool:  # noqa: ANN401 - transformers is untyped
    """Whether a layer has a sliding window or a chunked mask."""
    kinds = getattr(config, "layer_types", None)
    local = kinds is not None and kinds[layer] in ("sliding_attention", "chunked_attention")
    return local or window is not None


def mask(**arguments: Any) -> Tensor | None:  # noqa: ANN401 - transformers is untyped
    """The mask function of transformers' registry."""
    if arguments.get("local_size") is None:
        return build_mask(**arguments)
    return build_local_mask(ACTIVE[arguments["config"].msa_retrofit].before, arguments)


def _refuse_extras(module: nn.Module, layer: int, given: dict[str, Any]) -> None:
    """Raise ValueError where a layer does more than causal softmax attention."""
    for name in ("softcap", "s_aux", "position_bias", "block_indices"):
        if given.get(name) is not None:
            raise ValueError(f"{name}: wanted a layer without it, got one in layer {layer}")
    causal = given.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if given.get("dropout") or not causal:
        raise ValueError(
            f"layer {layer}: wanted causal attention without dropout, got "
            f"dropout {given.get('dropout')} and is_causal {causal}"
        )


@torch.no_grad()
def _score(
    active: Active,
    scorer: str,
    asked: Tensor,
    keys: Tensor,
    where: dict[str, Any],
    scale: float,
    seed: int,
) -> Tensor:
    """Block scores, float32 ``[Tq, Hkv, NB]``; no gradient goes through a choice."""
    name = TRAINED.get(scorer, scorer)
    if name == "max":
        return active.operations.block_scores(asked, keys, **where, scale=scale)
    return find_scorer(name)(asked, keys, **where, scale=scale, seed=seed)


def _learn(
    active: Active,
    layer: int,
    given: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    where: dict[str, Any],
    scales: tuple[float, float],
) -> None:
    """Leave the loss of a layer's index branch with the alignment of this forward pass."""
    align = cast("Alignment", active.alignment)
    scale, index_scale = scales
    align.losses[layer] = align.measure(
        *given, operations=active.operations, **where, scale=scale, index_scale=index_scale
    )


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,  # noqa: ANN401 - whatever a model passes on
) -> tuple[Tensor, Tensor | None]:
    """The attention function: ``[B, H, L, D]`` in, ``[B, L, H, D]`` out."""
    config: Any = module.config
    active = ACTIVE[config.msa_retrofit]
    layer = int(cast("int", module.layer_idx))
    own_mask = has_own_mask(config, layer, kwargs.get("sliding_window"))
    if own_mask or layer in config.msa_dense_layers:
        return attend_dense(
            active.before, module, query, key, value, attention_mask, own_mask=own_mask, **kwargs
        )
    _refuse_extras(module, layer, kwargs)
    settings = RetrofitSettings.from_config(config)
    plan = active.packing(attention_mask, query, key)
    q = pack(query, plan.q_index)  # [Tq, Hq, D]
    k = pack(key[:, :, : plan.k_slots], plan.k_index)  # [Tk, Hkv, D]
    v = pack(value[:, :, : plan.k_slots], plan.k_index)
    given = kwargs.get("scaling")
    scale = query.shape[-1] ** -0.5 if given is None else float(given)
    where: dict[str, Any] = {"cu_q": plan.cu_q, "cu_k": plan.cu_k, "block": settings.block}
    asked, keys, index_scale = q, k, scale
    if settings.scorer in TRAINED:
        q_idx, k_idx = active.index.pop(layer)
        asked, keys = pack(q_idx, plan.q_index), pack(k_idx[:, :, : plan.k_slots], plan.k_index)
        index_scale = asked.shape[-1] ** -0.5
    elif settings.scorer not in ALL_HEADS:
        asked = q.reshape(len(q), k.shape[1], -1, q.shape[2]).mean(2)  # [Tq, Hkv, D]
    align = active.alignment if torch.is_grad_enabled() else None
    if align is not None and align.phase == "warmup":
        every = visible_blocks(**where, groups=k.shape[1])
        _learn(active, layer, (asked, keys, q, k, every), where, (scale, index_scale))
        return attend_dense(
            active.before, module, query, key, value, attention_mask, own_mask=False, **kwargs
        )
    # Without the layer in it, a random selection would be the same in every layer.
    seed = settings.seed + 1_000_003 * layer
    scores = _score(active, settings.scorer, asked, keys, where, index_scale, seed)
    forced: dict[str, Any] = {
        "local_blocks": settings.local_blocks,
        "sink_blocks": settings.sink_blocks,
    }
    selection = active.operations.select_blocks(scores, **where, topk=settings.topk, **forced)
    if align is not None:
        _learn(active, layer, (asked, keys, q, k, selection), where, (scale, index_scale))
    if active.recorder is not None:
        active.recorder.take(
            layer=layer,
            q=q,
            k=k,
            scores=scores,
            selection=selection,
            scale=scale,
            **where,
            **forced,
        )
    out = attend_sparse(q, k, v, selection, operations=active.operations, **where, scale=scale)
    return unpack(out, plan.q_index, query.shape[0], query.shape[2]), None
