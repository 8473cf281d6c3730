"""Tiny random models of several families, saved with the embedded model's byte tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl as minimax

from msa_suites.models.tokenizer import write_tokenizer

POSITIONS = 16384
_SHAPE = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "mistral": {"model_type": "mistral", "sliding_window": None, "head_dim": 8},
    "gemma": {"model_type": "gemma", "head_dim": 8, "tie_word_embeddings": False},
    # A layer with a window and one without.
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 64,
        "tie_word_embeddings": False,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": None,
    },
}
M3_BLOCK, M3_TOPK = 32, 4
_M3 = {
    **_SHAPE,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "rope_parameters": {**_SHAPE["rope_parameters"], "partial_rotary_factor": 0.5},
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "dense_intermediate_size": 32,
    "shared_intermediate_size": 16,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_block_size": M3_BLOCK,
    "index_topk_blocks": M3_TOPK,
    "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
}
_EYES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def _save(model, directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            # Large enough that attention, and so the choice of blocks, matters to the output.
            torch.nn.init.normal_(parameter, std=1.0 if "embed" in name else 0.3)
    model.save_pretrained(directory)
    write_tokenizer(directory, max_length=POSITIONS)
    return directory


def save_family(name: str, directory: Path, *, seed: int = 0, **changes: object) -> Path:
    """A random model of a family of :data:`FAMILIES`, in ``directory``."""
    shape = {**_SHAPE, **FAMILIES[name], **changes}
    config = transformers.AutoConfig.for_model(shape.pop("model_type"), **shape)
    return _save(transformers.AutoModelForCausalLM.from_config(config), directory, seed)


def save_m3(directory: Path, *, seed: int = 0, sees: bool = False, **changes: object) -> Path:
    """A random MiniMax-M3: its text part, or with eyes as it is released."""
    text = {**_M3, **changes}
    if sees:
        config = minimax.MiniMaxM3VLConfig(
            text_config=text, vision_config=_EYES, projector_hidden_size=16
        )
        return _save(minimax.MiniMaxM3SparseForConditionalGeneration(config), directory, seed)
    config = minimax.MiniMaxM3VLTextConfig(**text)
    return _save(minimax.MiniMaxM3VLForCausalLM(config), directory, seed)
