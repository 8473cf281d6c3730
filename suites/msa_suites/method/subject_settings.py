"""What a worker runs of the subject's own scorers, settings, costs, and models with windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


def scored(name: str, q: Tensor, k: Tensor, lengths: Mapping[str, Any], **how: Any) -> Tensor:  # noqa: ANN401
    """Block scores ``[Tq, Hkv, NB]`` by the scorer of that name."""
    from msa.scorers import find_scorer

    scores: Tensor = find_scorer(name)(q, k, **lengths, **how)
    return scores


def read_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a MiniMax-M3 ``sparse_attention_config`` is read as."""
    from msa.config import MSAConfig

    config = MSAConfig.from_m3(entry)
    return {**asdict(config), "budget_tokens": config.budget_tokens}


def defaults(of: str) -> dict[str, Any]:
    """The fields of a settings class, "module:class", that nobody set."""
    module, _, name = of.partition(":")
    return asdict(getattr(import_module(module), name)())


def costs(shape: Mapping[str, int], lengths: Sequence[int]) -> dict[str, Any]:
    """Ceiling, break-even and one row a length."""
    from msa.cost import CostShape, cost_rows

    layer = CostShape(**shape)
    rows = [asdict(row) for row in cost_rows(layer, lengths)]
    return {"ceiling": layer.ceiling, "break_even": layer.break_even, "rows": rows}


def _sharpen(model: Any, by: float) -> None:  # noqa: ANN401 - transformers is untyped
    """Uneven attention, in place: with that of fresh weights no selection would matter."""
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.mul_(by)


@torch.inference_mode()
def unscaled(implementation: Any, length: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Retrofitted logits ``[length, vocabulary]`` of a small random model, twice.

    First as transformers calls its attention; then without a word of the scale, as older models
    do, which means ``D ** -0.5``.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    from msa.retrofit import apply_retrofit
    from msa.retrofit_settings import RetrofitSettings

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model: Any = LlamaForCausalLM(config).eval()
    _sharpen(model, 50)
    ids = torch.randint(2, 64, (1, length), generator=torch.Generator().manual_seed(1))
    settings = RetrofitSettings(block=8, topk=3, sink_blocks=0)
    found = []
    with apply_retrofit(model, settings, operations=implementation):
        for said in (True, False):
            if not said:
                for layer in model.model.layers:
                    layer.self_attn.scaling = None
            found.append(model(input_ids=ids, use_cache=False).logits[0].clone())
    return found[0], found[1]


@torch.inference_mode()
def windowed(implementation: Any, topk: int | None, window: int, length: int) -> list[Tensor]:  # noqa: ANN401
    """Logits of a small random model with a sliding window and a scale of its own.

    Args:
        implementation: the subject's.
        topk: blocks of 8 kept by the retrofit; None leaves the model as it is.
        window: of two of its three layers, tokens.
        length: of the two rows; the second is padded by a third on the left.
    """
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from msa.retrofit import apply_retrofit, remove_retrofit
    from msa.retrofit_settings import RetrofitSettings

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=3,  # so that the scale is not that of the head dim
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=window,
    )
    model: Any = Gemma3ForCausalLM(config).eval()
    _sharpen(model, 8)
    ids = torch.randint(2, 64, (2, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, : length // 3] = 0
    if topk is not None:
        settings = RetrofitSettings(block=8, topk=topk, sink_blocks=0)
        apply_retrofit(model, settings, operations=implementation)
    try:
        found = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    finally:
        remove_retrofit(model)
    return [row[kept.bool()].clone() for row, kept in zip(found, mask, strict=True)]
