"""MSA without training in any causal language model of transformers.

The model's own attention is replaced through two registrations, one for the attention and one for
its mask: without the second, padding would be ignored in silence. Block scores come from the mean
of a group's query heads (scorer ``max`` is the implementation's own ``block_scores``).

    with apply_retrofit(model, RetrofitSettings(block=32, topk=4), operations=msa.reference):
        model.generate(...)

Settings live in ``model.config.msa_*`` and are read at every call, so
``model.config.msa_topk = 8`` takes effect at once. Layers with a sliding window or a chunked mask,
and those listed in ``dense_layers``, run as they did before. transformers is imported when called.
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

from torch import Tensor, nn

from msa.operations import Operations, find_operations
from msa.padding import Packing, pack, plan_packing, unpack
from msa.recording import Recorder
from msa.retrofit_dense import attend_dense, build_local_mask, build_mask
from msa.retrofit_settings import RetrofitSettings
from msa.scorers import ALL_HEADS, find_scorer

#: The name in transformers' two registries.
NAME = "msa_retrofit"


@dataclass(slots=True)
class _Active:
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


_ACTIVE: dict[str, _Active] = {}
_COUNT = itertools.count(1)


def _has_own_mask(config: Any, layer: int, window: object) -> bool:  # noqa: ANN401
    """Whether a layer has a sliding window or a chunked mask."""
    kinds = getattr(config, "layer_types", None)
    local = kinds is not None and kinds[layer] in ("sliding_attention", "chunked_attention")
    return local or window is not None


def _mask(**arguments: Any) -> Tensor | None:  # noqa: ANN401 - transformers is untyped
    """The mask function of transformers' registry."""
    if arguments.get("local_size") is None:
        return build_mask(**arguments)
    return build_local_mask(_ACTIVE[arguments["config"].msa_retrofit].before, arguments)


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


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,  # noqa: ANN401 - whatever a model passes on
) -> tuple[Tensor, Tensor | None]:
    """The attention function: ``[B, H, L, D]`` in, ``[B, L, H, D]`` out."""
    config: Any = module.config
    active = _ACTIVE[config.msa_retrofit]
    layer = int(cast("int", module.layer_idx))
    own_mask = _has_own_mask(config, layer, kwargs.get("sliding_window"))
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


class Retrofit:
    """A retrofit in place; leaving its ``with`` block, or :func:`remove_retrofit`, ends it.

    Attributes:
        model: the model.
        recorder: what records the selections, or None.
        sparse_layers: indices of the layers that run MSA.
    """

    def __init__(
        self, model: nn.Module, recorder: Recorder | None, sparse_layers: tuple[int, ...]
    ) -> None:
        self.model = model
        self.recorder = recorder
        self.sparse_layers = sparse_layers

    def __enter__(self) -> Retrofit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        remove_retrofit(self.model)


def _text_config(model: nn.Module) -> Any:  # noqa: ANN401
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "set_attn_implementation"):
        raise TypeError(f"model: wanted a model of transformers, got {type(model).__name__}")
    return config.get_text_config(decoder=True)


def _sparse_layers(config: Any, dense: tuple[int, ...]) -> tuple[int, ...]:  # noqa: ANN401
    """Layers that will run MSA.

    Raises:
        ValueError: a dense layer does not exist, or no layer is left.
    """
    count = config.num_hidden_layers
    unknown = [layer for layer in dense if not 0 <= layer < count]
    if unknown:
        raise ValueError(f"dense_layers: wanted indices 0 to {count - 1}, got {unknown}")
    # A model without layer types has its window, if any, in every layer.
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) if kinds is None else None
    found = tuple(i for i in range(count) if not (_has_own_mask(config, i, window) or i in dense))
    if not found:
        raise ValueError(
            f"model: wanted a layer with full attention, got {count} layers that are all dense by "
            "the settings or have a sliding window"
        )
    return found


def _switch(model: Any, name: str) -> None:  # noqa: ANN401
    """Set the attention of the text part of ``model``; a vision tower keeps its own."""
    text = _text_config(model)
    if text is model.config:
        model.set_attn_implementation(name)
    else:
        part = next(key for key in model.config.sub_configs if getattr(model.config, key) is text)
        model.set_attn_implementation({part: name})
    if text._attn_implementation != name:
        raise ValueError(
            f"model: wanted one whose attention can be replaced, got {type(model).__name__}, "
            "which does not look its attention up by name"
        )


def apply_retrofit(
    model: nn.Module,
    settings: RetrofitSettings,
    *,
    operations: Operations | str | None = None,
    recorder: Recorder | None = None,
) -> Retrofit:
    """Make ``model`` attend through MSA, in place.

    Args:
        model: a causal language model of transformers.
        settings: written to ``model.config.msa_*``.
        operations: object or name (``module`` or ``module:object``) of an implementation; the
            default is :data:`msa.operations.DEFAULT_OPERATIONS`. Its name is kept as
            ``config.msa_operations``.
        recorder: takes every selection of every sparse layer.

    Returns:
        The retrofit in place, a context manager.

    Raises:
        TypeError: not a model of transformers, or an operation is missing.
        ValueError: a retrofit is in place already, a dense layer does not exist, no layer is
            left, or the model does not look its attention up by name.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    config = _text_config(model)
    if getattr(config, "msa_retrofit", None) in _ACTIVE:
        raise ValueError("model: wanted one without a retrofit, got one; remove_retrofit first")
    layers = _sparse_layers(config, settings.dense_layers)
    found = find_operations(operations)
    before = config._attn_implementation
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    _switch(model, NAME)
    settings.write(config)
    config.msa_operations = getattr(found, "__name__", type(found).__qualname__)
    config.msa_retrofit = f"retrofit-{next(_COUNT)}"
    _ACTIVE[config.msa_retrofit] = _Active(found, recorder, before)
    return Retrofit(model, recorder, layers)


def remove_retrofit(model: nn.Module) -> None:
    """Give ``model`` its own attention back and clear ``config.msa_*``; twice does no harm."""
    config = _text_config(model)
    active = _ACTIVE.pop(getattr(config, "msa_retrofit", ""), None)
    if active is None:
        return
    _switch(model, active.before)
    for name in [name for name in vars(config) if name.startswith("msa_")]:
        delattr(config, name)
