"""Small models of transformers, inputs for them, and ways to run them."""

from __future__ import annotations

import torch
import transformers
from transformers import DynamicCache, StaticCache

from msa.retrofit import RetrofitSettings

VOCABULARY = 64
TOLERANCE = 1e-6
KEEP_ALL = RetrofitSettings(block=8, topk=64)
SPARSE = RetrofitSettings(block=4, topk=3)
SLIDING = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 6,
}
MODELS = {
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2-sliding": ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, **SLIDING}),
    "gemma3": ("gemma3", SLIDING),
}


def tiny(kind="qwen2", attention="sdpa", **more):
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
        "attn_implementation": attention,
        **more,
    }
    names = {
        "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
        "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
        "llama": ("LlamaConfig", "LlamaForCausalLM"),
        "mistral": ("MistralConfig", "MistralForCausalLM"),
        "gemma2": ("Gemma2Config", "Gemma2ForCausalLM"),
        "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    }[kind]
    torch.manual_seed(0)
    config = getattr(transformers, names[0])(**common)
    model = getattr(transformers, names[1])._from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(8)  # uneven attention, or selection would not matter
    return model.eval()


def tokens(batch, length, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (batch, length), generator=draw)


def left_padded(lengths, seed=0):
    """(ids, mask) of sequences that end together."""
    widest = max(lengths)
    ids, mask = tokens(len(lengths), widest, seed), torch.ones(len(lengths), widest).long()
    for row, length in enumerate(lengths):
        ids[row, : widest - length] = 0
        mask[row, : widest - length] = 0
    return ids, mask


def positions(mask):
    return (mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def logits(model, ids, **kwargs):
    return model(input_ids=ids, **kwargs).logits


def new_cache(model, kind):
    """An empty cache; a static one has room for 48 tokens."""
    if kind == "dynamic":
        return DynamicCache(config=model.config)
    return StaticCache(config=model.config, max_cache_len=48)


@torch.no_grad()
def in_chunks(model, ids, mask, chunks, cache):
    out, start = [], 0
    for length in chunks:
        stop = start + length
        result = model(
            input_ids=ids[:, start:stop],
            attention_mask=mask[:, :stop],
            position_ids=positions(mask)[:, start:stop],
            past_key_values=cache,
            use_cache=True,
        )
        out.append(result.logits)
        start = stop
    return torch.cat(out, 1)


def assert_close(got, want, where=None):
    if where is not None:
        got, want = got[where.bool()], want[where.bool()]
    off = float((got - want).abs().max())
    assert off <= TOLERANCE, f"off by {off}"
