"""Faults of a trained index branch inside a model: its cache, its positions, its training."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.faults.table import Given, fault, wrapping

_CHUNKS = "method:index_chunks"
_TRAINING = "method:index_training"
_CACHE = "msa.retrofit_index._CacheWithIndexKeys.update"
_LEARN = "msa.retrofit_attention._learn"


@fault("selection", "method:index", seen="vmlx#226")
@wrapping("msa.retrofit_index.load_index")
def gains_of_the_index_branch_not_loaded(
    right: Given, model: Given, weights: dict[str, Tensor]
) -> None:
    """The norms of the index branch keep the gains that they start with."""
    right(model, {name: x * ("norm" not in name) for name, x in weights.items()})


@fault("cache", _CHUNKS, seen="ATOM#1368", cause="index keys of earlier chunks are lost")
@wrapping(_CACHE)
def index_keys_of_earlier_chunks_lost(
    right: Given, self: Given, key: Tensor, value: Tensor, layer: int, *rest: Given
) -> Given:
    """A chunk of a prompt finds zeros for index keys of the chunks before it."""
    take, past = self._take, self._cache.get_seq_length(layer)
    self._take = lambda keys: take(keys * (torch.arange(keys.shape[2]) >= past)[:, None])
    return right(self, key, value, layer, *rest)


@fault("cache", _CHUNKS, cause="counted from the chunk")
@wrapping("msa.index_branch.IndexBranch.forward")
def index_positions_counted_from_the_chunk(
    right: Given, self: Given, hidden: Tensor, positions: Tensor
) -> Given:
    """Every chunk of a prompt is rotated as if the sequence began with it."""
    row = torch.arange(len(positions))
    starts = positions.diff(prepend=positions[:1]) != 1
    return right(self, hidden, positions - positions[(row * starts).cummax(0).values])


@fault("training", _TRAINING, seen="the paper, B.3", cause="are not detached")
@wrapping("msa.retrofit_index.feed_index")
def inputs_of_the_index_branch_not_detached(right: Given, *model: Given, **more: Given) -> Given:
    """The index branch's loss moves the model through the hidden states that it reads."""
    return right(*model, **{**more, "detach": lambda: False})


@fault("training", _TRAINING, cause="one head of a group")
@wrapping(_LEARN)
def model_teaches_by_one_head(
    right: Given, active: Given, layer: int, given: tuple[Tensor, ...], *rest: Given
) -> Given:
    """In a model, the teacher is the first head of every group, not the mean of all."""
    q_idx, k_idx, q, k, selection = given
    first = q[:, :: q.shape[1] // k.shape[1]]
    return right(active, layer, (q_idx, k_idx, first, k, selection), *rest)


@fault("training", _TRAINING, cause="over the selected blocks")
@wrapping(_LEARN)
def warmup_learns_from_selected_blocks(
    right: Given,
    active: Given,
    layer: int,
    given: tuple[Tensor, ...],
    where: dict[str, Given],
    *rest: Given,
) -> Given:
    """The loss of the warm-up leaves out what the untrained branch does not select."""
    q_idx, k_idx, q, k, selection = given
    if active.alignment.phase == "warmup":
        asked = active.operations
        scores = asked.block_scores(q_idx.detach(), k_idx.detach(), **where, scale=1.0)
        selection = asked.select_blocks(scores, **where, topk=4, sink_blocks=1)
    return right(active, layer, (q_idx, k_idx, q, k, selection), where, *rest)


@fault("backward", _TRAINING, cause="scale of the logits is missing")
@wrapping("msa.fast.backward.sparse_attention_backward")
def backward_without_the_scale(
    right: Given, *tensors: Tensor, scale: float, **rest: Given
) -> Given:
    """The gradients of queries and keys lack the factor on the logits."""
    dq, dk, dv = right(*tensors, scale=scale, **rest)
    return dq / scale, dk / scale, dv


@fault("backward", _TRAINING, cause="no gradient passes")
@wrapping("msa.alignment.attend_sparse")
def text_learns_nothing_through_attention(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """Sparse attention hands no gradient on: weights of queries, keys and values stand still."""
    return right(*(x.detach() for x in tensors), **rest)
