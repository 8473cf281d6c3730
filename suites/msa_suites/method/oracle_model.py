"""The embedded model under MSA without training, in float64 and apart from ``msa.retrofit``.

Dense attention with the scores written out, and a mask over them: no packing, no index branch, no
cache. It runs in the judge's process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from msa_suites.correctness.bruteforce import chosen_blocks
from msa_suites.models.attention import Network

_NAME = "msa_suites_oracle"


class Layer(Protocol):
    """What transformers hands to an attention function."""

    layer_idx: int


@torch.inference_mode()
def logits(
    rows: Sequence[Sequence[int]],
    *,
    block: int,
    topk: int,
    sink_blocks: int,
    local_blocks: int = 1,
    scorer: str = "max",
    dense_layers: Sequence[int] = (),
) -> list[Tensor]:
    """Float64 ``[length, vocabulary]`` of every row of token ids, each read alone.

    ``scorer`` is "max", "mean" or "recent"; the other settings are those of the retrofit.
    """
    from msa_suites.models.loading import EMBEDDED, load_model  # isort: skip - loads it whole
    from transformers import AttentionInterface

    # No mask is registered under this name, so transformers makes none.
    attention = partial(
        _attention,
        block=block,
        topk=topk,
        forced=(local_blocks, sink_blocks),
        scorer=scorer,
        dense=tuple(dense_layers),
    )
    AttentionInterface.register(_NAME, attention)
    model: Network = load_model(str(EMBEDDED), dtype="float64")[0]
    model.set_attn_implementation(_NAME)
    return [model(torch.tensor([list(row)]), use_cache=False).logits[0] for row in rows]


def _pooled(score: Tensor, block: int, scorer: str) -> Tensor:
    """Scores ``[Hkv, T, T]``, -inf in the future, as ``[Hkv, T, nb]``."""
    parts = score.split(block, -1)
    if scorer == "mean":
        counts = [part.isfinite().sum(-1) for part in parts]
        sums = [part.masked_fill(part.isinf(), 0.0).sum(-1) for part in parts]
        means = (total / count.clamp_min(1) for total, count in zip(sums, counts, strict=True))
        return torch.stack(list(means), -1)
    if scorer == "recent":
        return torch.arange(len(parts)).double().expand(*score.shape[:2], -1)
    return torch.stack([part.amax(-1) for part in parts], -1)


def _attention(
    module: Layer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: object,
    *,
    scaling: float,
    block: int,
    topk: int,
    forced: tuple[int, int],
    scorer: str,
    dense: Sequence[int],
    **rest: object,
) -> tuple[Tensor, None]:
    """One sequence: ``[1, Hq, T, D]`` and ``[1, Hkv, T, D]`` in, ``[1, T, Hq, D]`` out."""
    del mask, rest
    tokens, groups = query.shape[2], key.shape[1]
    dot = query[0].unflatten(0, (groups, -1)) @ key[0, :, None].mT * scaling  # [Hkv, R, T, T]
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    # The dot product is linear: the score of the mean query is the mean of the scores.
    score = dot.mean(1).masked_fill(future, -torch.inf)
    best = _pooled(score, block, scorer)  # [Hkv, T, nb]
    if module.layer_idx in dense:
        topk = best.shape[-1]
    kept = torch.zeros_like(best, dtype=torch.bool)
    for g in range(groups):
        for t in range(tokens):
            kept[g, t, chosen_blocks(best[g, t].tolist(), t, block, topk, *forced)] = True
    hidden = future | ~kept.repeat_interleave(block, -1)[..., :tokens]
    weight = dot.masked_fill(hidden[:, None], -torch.inf).softmax(-1)
    return (weight @ value[0, :, None]).flatten(0, 1).transpose(0, 1)[None], None
