"""The shape of the embedded model and its start.

The model is Qwen2-shaped because that family has biases on q, k and v, and the start needs them:
in layer 0 the q and k biases are CONSTRUCTED so that query head h attends h + 1 tokens back from
the first step. From a plain random start the recall task was not solved within the budget of a
CPU; the model card says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 256
#: Byte 0 never occurs in the text; it ends and pads.
PAD_BYTE = 0


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the embedded model; the defaults are the shipped one (0.6 M parameters)."""

    layers: int = 3
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 384
    rope_theta: float = 1e7
    max_positions: int = 16384


def build_config(shape: ModelShape) -> Qwen2Config:
    """The Hugging Face configuration of ``shape``."""
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": PAD_BYTE,
        "pad_token_id": PAD_BYTE,
        "attention_dropout": 0.0,
    }
    return Qwen2Config(**settings)


def build_model(shape: ModelShape, *, plain_start: bool, strength: float = 6.0) -> Qwen2ForCausalLM:
    """A freshly initialised model, in float32.

    Args:
        shape: sizes.
        plain_start: leave the biases at zero (the control run) instead of constructing them.
        strength: amplitude of the constructed bias per rotary pair.
    """
    model = Qwen2ForCausalLM(build_config(shape)).float()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        if not plain_start:
            _look_back(model, shape, strength)
    return model


def _look_back(model: Qwen2ForCausalLM, shape: ModelShape, strength: float) -> None:
    """Make head h of layer 0 attend ``h + 1`` tokens back.

    Rotary embedding turns pair f of a vector at position p by ``p * theta_f``. With the k bias
    (a, 0) in every pair and the q bias (a, 0) turned by ``-offset * theta_f``, the bias part of
    the logit is ``sum_f a^2 cos((p_q - p_k - offset) * theta_f)``: largest at the offset.
    """
    head_dim = shape.hidden // shape.heads
    pairs = head_dim // 2
    theta = shape.rope_theta ** (-torch.arange(pairs) / pairs)
    attention = model.model.layers[0].self_attn
    k_bias = attention.k_proj.bias.view(shape.kv_heads, 2, pairs)
    k_bias[:, 0] = strength
    k_bias[:, 1] = 0.0
    q_bias = attention.q_proj.bias.view(shape.heads, 2, pairs)
    for head in range(shape.heads):
        q_bias[head, 0] = strength * torch.cos((head + 1) * theta)
        q_bias[head, 1] = -strength * torch.sin((head + 1) * theta)
    peak = pairs * strength**2 / math.sqrt(head_dim)
    assert peak > 2 * math.log(shape.max_positions), "the constructed peak drowns in a long context"
