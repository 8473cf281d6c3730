"""The two functions that the retrofit registers with transformers, and what they look up."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from msa.operations import Operations
from msa.padding import Packing, pack, plan_packing, unpack
from msa.recording import Recorder
from msa.retrofit_dense import attend_dense, build_local_mask, build_mask
from msa.retrofit_settings import RetrofitSettings
from msa.scorers import ALL_HEADS, find_scorer


@dataclass(slots=True)
class Active:
    """What a config cannot hold: objects. Found by ``config.msa_retrofit``."""

    operations: Operations
    recorder: Recorder | None
    before: str
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
    if settings.scorer in ALL_HEADS:
        asked = q
    else:
        asked = q.reshape(len(q), k.shape[1], -1, q.shape[2]).mean(2)  # [Tq, Hkv, D]
    if settings.scorer == "max":
        scores = active.operations.block_scores(asked, k, **where, scale=scale)
    else:
        # Without the layer in it, a random selection would be the same in every layer.
        seed = settings.seed + 1_000_003 * layer
        scores = find_scorer(settings.scorer)(asked, k, **where, scale=scale, seed=seed)
    forced: dict[str, Any] = {
        "local_blocks": settings.local_blocks,
        "sink_blocks": settings.sink_blocks,
    }
    selection = active.operations.select_blocks(scores, **where, topk=settings.topk, **forced)
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
    out, _ = active.operations.sparse_attention(q, k, v, selection, **where, scale=scale)
    return unpack(out, plan.q_index, query.shape[0], query.shape[2]), None
