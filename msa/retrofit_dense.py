"""What the retrofit hands back to transformers: masks, and layers that stay dense."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn


def build_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    mask_function: Any = None,  # noqa: ANN401 - transformers is untyped
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    **_: object,
) -> Tensor | None:
    """The mask of layers with full attention; :mod:`msa.padding` says how it is read.

    Args:
        batch_size: B.
        q_length: query slots.
        kv_length: key slots; a static cache counts those too that are not written yet.
        q_offset: slot of the first query.
        mask_function: which keys a query may see, by index.
        attention_mask: bool ``[B, tokens]``, False at padding, or None.
        device: of the mask.

    Returns:
        None, or bool ``[B, q_offset + q_length]``.

    Raises:
        ValueError: a mask that is more than causal with padding, or too short for its tokens.
    """
    from transformers.masking_utils import causal_mask_function

    if mask_function not in (None, causal_mask_function):
        raise ValueError(
            "mask_function: wanted plain causal attention with padding, got another pattern "
            "(packed sequences in one row, or a mask of the model's own)"
        )
    written = int(q_offset) + q_length
    if attention_mask is None:
        if written == kv_length:
            return None
        return torch.ones((batch_size, written), dtype=torch.bool, device=device)
    if attention_mask.shape[-1] < written:
        raise ValueError(
            f"attention_mask: wanted at least {written} columns, one for every token seen so far, "
            f"got {attention_mask.shape[-1]}"
        )
    real = attention_mask[:, :written].bool()
    return None if written == kv_length and bool(real.all()) else real


def build_local_mask(before: str, arguments: dict[str, Any]) -> Tensor | None:
    """The mask of a sliding or chunked layer, as ``before`` ("sdpa" or "eager") always made it."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    mask: Tensor | None = ALL_MASK_ATTENTION_FUNCTIONS[before](**arguments)
    return mask


def _full_mask(before: str, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor | None:
    """The retrofit's mask in the form that ``before`` wants, ``[B, 1, Lq, Lk]`` or None."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    written = key.shape[2] if mask is None else mask.shape[1]
    made: Tensor | None = ALL_MASK_ATTENTION_FUNCTIONS[before](
        batch_size=query.shape[0],
        q_length=query.shape[2],
        kv_length=key.shape[2],
        q_offset=written - query.shape[2],
        attention_mask=mask,
        dtype=query.dtype,
        device=query.device,
    )
    return made


def attend_dense(
    before: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    own_mask: bool,
    **kwargs: Any,  # noqa: ANN401 - transformers is untyped
) -> tuple[Tensor, Tensor | None]:
    """Run a layer as it ran before the retrofit.

    Args:
        before: "sdpa" or "eager".
        module: the layer's attention module.
        query: ``[B, Hq, Lq, D]``.
        key: ``[B, Hkv, Lk, D]``.
        value: ``[B, Hkv, Lk, D]``.
        mask: of :func:`build_mask`, or of :func:`build_local_mask` where ``own_mask``.
        own_mask: the layer has a sliding or chunked mask.
        kwargs: what the model passes on.

    Raises:
        ValueError: the model has no eager attention to go back to.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if before == "eager":
        function = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        if function is None:
            raise ValueError(
                f"model: wanted eager_attention_forward in {type(module).__module__}, got none; "
                "load the model with attn_implementation='sdpa'"
            )
    else:
        function = ALL_ATTENTION_FUNCTIONS[before]
    if not own_mask:
        mask = _full_mask(before, query, key, mask)
    out: tuple[Tensor, Tensor | None] = function(module, query, key, value, mask, **kwargs)
    return out
