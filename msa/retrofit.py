"""MSA without training in any causal language model of transformers.

The model's own attention is replaced through two registrations, one for the attention and one for
its mask: without the second, padding would be ignored in silence. Block scores come from the mean
of a group's query heads (scorer ``max`` is the implementation's own ``block_scores``), or from an
index branch that was trained (scorer ``index``: :mod:`msa.retrofit_index`).

    with apply_retrofit(model, RetrofitSettings(block=32, topk=4), operations=msa.reference):
        model.generate(...)

Settings live in ``model.config.msa_*`` and are read at every call, so
``model.config.msa_topk = 8`` takes effect at once. Layers with a sliding window or a chunked mask,
and those listed in ``dense_layers``, run as they did before. transformers is imported when called.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import nn

from msa.alignment import Alignment
from msa.operations import Operations, find_operations
from msa.recording import Recorder
from msa.retrofit_attention import ACTIVE, Active, attention, has_own_mask, mask
from msa.retrofit_index import feed_index, index_branches
from msa.retrofit_settings import TRAINED, RetrofitSettings

__all__ = ["NAME", "Retrofit", "RetrofitSettings", "apply_retrofit", "remove_retrofit"]

#: The name in transformers' two registries.
NAME = "msa_retrofit"

_COUNT = itertools.count(1)


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

    def __exit__(self, *raised: object) -> None:
        remove_retrofit(self.model)


def _text_config(model: nn.Module) -> Any:  # noqa: ANN401 - transformers is untyped
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(model, "set_attn_implementation"):
        raise TypeError(f"model: wanted a model of transformers, got {type(model).__name__}")
    return config.get_text_config(decoder=True)


def _sparse_layers(config: Any, dense: tuple[int, ...]) -> tuple[int, ...]:  # noqa: ANN401 - transformers is untyped
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
    found = tuple(i for i in range(count) if not (has_own_mask(config, i, window) or i in dense))
    if not found:
        raise ValueError(
            f"model: wanted a layer with full attention, got {count} layers that are all dense by "
            "the settings or have a sliding window"
        )
    return found


def _check_index(
    model: nn.Module,
    settings: RetrofitSettings,
    layers: tuple[int, ...],
    alignment: Alignment | None,
) -> None:
    """Raise ValueError unless every sparse layer has the index branch that is asked for."""
    trained = settings.scorer in TRAINED
    if alignment is not None and not trained:
        raise ValueError(
            f"alignment: wanted a scorer of {', '.join(TRAINED)}, got {settings.scorer!r}, "
            "which has nothing to train"
        )
    have = index_branches(model) if trained else {}
    missing = [layer for layer in layers if layer not in have]
    if trained and missing:
        raise ValueError(
            f"scorer: wanted one without an index branch, which layers {missing} of the model "
            f"lack, got {settings.scorer!r}"
        )


def _switch(model: Any, name: str) -> None:  # noqa: ANN401 - transformers is untyped
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
    alignment: Alignment | None = None,
) -> Retrofit:
    """Make ``model`` attend through MSA, in place.

    Args:
        model: a causal language model of transformers.
        settings: written to ``model.config.msa_*``.
        operations: object or name (``module`` or ``module:object``) of an implementation; the
            default is :data:`msa.operations.DEFAULT_OPERATIONS`. Its name is kept as
            ``config.msa_operations``.
        recorder: takes every selection of every sparse layer.
        alignment: trains the index branch in forward passes with gradients.

    Returns:
        The retrofit in place, a context manager.

    Raises:
        TypeError: not a model of transformers, or an operation is missing.
        ValueError: a retrofit is in place already, a dense layer does not exist, no layer is
            left, or the model does not look its attention up by name; or a sparse layer lacks
            the index branch that the settings or ``alignment`` ask for.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    config = _text_config(model)
    if getattr(config, "msa_retrofit", None) in ACTIVE:
        raise ValueError("model: wanted one without a retrofit, got one; remove_retrofit first")
    layers = _sparse_layers(config, settings.dense_layers)
    _check_index(model, settings, layers, alignment)
    found = find_operations(operations)
    before = config._attn_implementation
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    _switch(model, NAME)
    settings.write(config)
    config.msa_operations = getattr(found, "__name__", type(found).__qualname__)
    config.msa_retrofit = f"retrofit-{next(_COUNT)}"
    active = Active(found, recorder, before, alignment)
    active.hooks += feed_index(
        model,
        layers,
        active.index,
        wanted=lambda: config.msa_scorer in TRAINED,
        detach=lambda: alignment is None or alignment.detach,
    )
    ACTIVE[config.msa_retrofit] = active
    return Retrofit(model, recorder, layers)


def remove_retrofit(model: nn.Module) -> None:
    """Give ``model`` its own attention back and clear ``config.msa_*``; twice does no harm."""
    config = _text_config(model)
    active = ACTIVE.pop(getattr(config, "msa_retrofit", ""), None)
    if active is None:
        return
    for hook in active.hooks:
        hook.remove()
    _switch(model, active.before)
    for name in [name for name in vars(config) if name.startswith("msa_")]:
        delattr(config, name)
