"""Index vectors as a trained model makes them, so that one timed overlap is a real one.

The embedded model reads one of the quality suite's contexts; the queries and keys of its last
layer, after the rotary embedding, become index vectors. Selections then overlap as they do in use.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from msa_suites.inputs import Inputs
from msa_suites.quality.items import load_items


def recorded_inputs(inputs: Inputs, index: int) -> Inputs:
    """``inputs`` with the index vectors of a recorded context; its last queries, for a chunk.

    Args:
        inputs: one packed sequence.
        index: which recorded context.

    Raises:
        ValueError: more groups or fewer channels than the recording has.
    """
    queries, groups, dim = inputs.q_idx.shape
    q, k = _recording(len(inputs.k_idx), index)
    if q.shape[1] < groups or q.shape[2] > dim:
        raise ValueError(
            f"q_idx: wanted at most {q.shape[1]} groups and at least {q.shape[2]} channels for a "
            f"recording, got {list(inputs.q_idx.shape)}"
        )
    # Zero channels change no score.
    pad = (0, dim - q.shape[2])
    dtype = inputs.q_idx.dtype
    q = q[len(q) - queries :, :groups]
    return replace(inputs, q_idx=F.pad(q, pad).to(dtype), k_idx=F.pad(k, pad).to(dtype))


def _context(tokens: int, index: int) -> bytes:
    """``tokens`` bytes of the quality suite's contexts, other documents for another ``index``."""
    documents = {item.cluster: item.context for item in load_items("msa_facts")}
    order = list(documents.values())
    text = "".join(order[index:] + order[:index])
    return (text * -(-tokens // len(text)))[:tokens].encode()


@cache
@torch.inference_mode()
def _recording(tokens: int, index: int) -> tuple[Tensor, Tensor]:
    """Query heads of the first KV group ``[T, R, D]`` and its keys ``[T, 1, D]``."""
    # Imported here: transformers takes seconds, and most commands record nothing.
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    from msa_suites.models.loading import EMBEDDED, load_model

    model, _ = load_model(str(EMBEDDED))
    attention = model.model.layers[-1].self_attn
    taken: list[dict[str, Any]] = []
    hook = attention.register_forward_pre_hook(
        lambda _module, _args, kwargs: taken.append(kwargs), with_kwargs=True
    )
    try:
        model(torch.tensor([list(_context(tokens, index))]), use_cache=False)
    finally:
        hook.remove()
    hidden, (cos, sin) = taken[0]["hidden_states"], taken[0]["position_embeddings"]
    q, k = (
        projection(hidden).view(1, tokens, -1, attention.head_dim).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj)
    )
    q, k = apply_rotary_pos_emb(q, k, cos, sin)
    per_group = q.shape[1] // k.shape[1]
    return (
        q[0, :per_group].transpose(0, 1).contiguous(),
        k[0, :1].transpose(0, 1).contiguous(),
    )
