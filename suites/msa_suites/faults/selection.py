# ruff: noqa: ARG001 - a fault often is an argument that nobody reads
"""Faults of scoring and selecting blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.faults.plain import best, everything, pooled, token_scores
from msa_suites.faults.table import Given, fault, wrapping

_SCORES = "msa.fast.scoring.score_rows"
_SELECT = "msa.fast.selecting.select_rows"
_BEST = "msa.fast.selecting._best"
_ATTENTION = "msa.fast.attention.sparse_attention"
_GROUPS = "correctness:group-of-3"
_LENGTHS = "correctness:lengths-127-128-129"


@fault(
    "selection", _LENGTHS, "quality:msa_facts", seen="seed blog", cause="mean of a block's scores"
)
@wrapping(_SCORES)
def mean_pooling(
    right: Given, q_idx: Tensor, keys: Tensor, first: int, block: int, scale: float
) -> Tensor:
    """The mean of a block's scores instead of the maximum: facts are lost, perplexity stays."""

    def mean(part: Tensor, seen: Tensor) -> Tensor:
        total = part.masked_fill(~seen, 0.0).sum(-1) / seen.sum(-1).clamp_min(1)
        return total.masked_fill(~seen.any(-1), -torch.inf)

    return pooled(token_scores(q_idx, keys, scale), first, block, mean)


@fault("selection", "quality:msa_facts", _LENGTHS)
@wrapping(_SCORES)
def random_selection(right: Given, q_idx: Tensor, keys: Tensor, *rest: Given) -> Tensor:
    """Random blocks: a few per cent of perplexity, all of the recall."""
    scores = right(q_idx, keys, *rest)
    draw = torch.Generator().manual_seed(scores.shape[0])
    noise = torch.rand(scores.shape, generator=draw)
    return noise.masked_fill(scores == -torch.inf, -torch.inf)


@fault("selection", "quality:msa_facts", _LENGTHS)
@wrapping(_SCORES)
def recent_blocks_only(right: Given, q_idx: Tensor, keys: Tensor, *rest: Given) -> Tensor:
    """The newest blocks instead of the best: a sliding window."""
    scores = right(q_idx, keys, *rest)
    ranks = torch.arange(scores.shape[-1]).float().expand_as(scores)
    return ranks.masked_fill(scores == -torch.inf, -torch.inf)


@fault("selection", _GROUPS, seen="transformers#46762", cause="one selection for all groups")
@wrapping(_SCORES)
def one_selection_for_all_groups(right: Given, q_idx: Tensor, keys: Tensor, *rest: Given) -> Tensor:
    """Index heads collapsed by a maximum over heads: one selection for all groups."""
    scores: Tensor = right(q_idx, keys, *rest)
    return scores.amax(1, keepdim=True).expand_as(scores).contiguous()


@fault("selection", _GROUPS, cause="one selection for all groups")
@wrapping(_SCORES)
def first_group_selects_for_all(right: Given, q_idx: Tensor, keys: Tensor, *rest: Given) -> Tensor:
    """Every group takes the selection of the first."""
    scores: Tensor = right(q_idx, keys, *rest)
    return scores[:, :1].expand_as(scores).contiguous()


@fault("selection", _LENGTHS, seen="tt-metal#48700", cause="future tokens of the query's own block")
@wrapping(_SCORES)
def future_tokens_scored(
    right: Given, q_idx: Tensor, keys: Tensor, first: int, block: int, scale: float
) -> Tensor:
    """No causal mask inside the query's own block before the maximum."""
    seen_to = min(-(-(first + len(q_idx)) // block) * block, keys.shape[1])
    token = token_scores(q_idx, keys[:, :seen_to], scale)
    position = first + torch.arange(len(q_idx))
    own = torch.arange(seen_to) // block <= (position // block)[:, None]
    hidden = token.masked_fill(~own[:, None], -torch.inf)
    return pooled(hidden, first, block, lambda part, _seen: part.amax(-1))


@fault("selection", _LENGTHS, seen="mlx-lm#1552", cause="the local block is not forced")
@wrapping(_BEST)
def local_block_not_forced(
    right: Given, scores: Tensor, local: Tensor, kept: int, local_blocks: int, sinks: int
) -> Given:
    """The local block competes with the others."""
    return right(scores, local, kept, 0, sinks)


@fault("selection", "correctness:sink-1", cause="a forced block is missing")
@wrapping(_BEST)
def sink_block_not_forced(
    right: Given, scores: Tensor, local: Tensor, kept: int, local_blocks: int, sinks: int
) -> Given:
    """The first block competes with the others."""
    return right(scores, local, kept, local_blocks, 0)


@fault("selection", _LENGTHS, seen="seed blog", cause="the wrong number of blocks")
@wrapping(_SELECT)
def budget_one_too_small(
    right: Given, scores: Tensor, local: Tensor, topk: int, *rest: Given
) -> Tensor:
    """A forced block takes a slot twice: one block fewer than asked for."""
    chosen: Tensor = right(scores, local, topk, *rest).clone()
    if topk > 1:
        chosen[..., -1] = -1
    return chosen


@fault("selection", _LENGTHS, seen="sglang-jax#1376", cause="in another unit")
@wrapping(_ATTENTION)
def page_size_for_block_size(right: Given, *tensors: Tensor, block: int, **rest: Given) -> Given:
    """Block ids are read in units of half a block."""
    return right(*tensors, block=block // 2, **rest)


@fault("selection", _LENGTHS, cause="block ids are one too low")
@wrapping(_ATTENTION)
def block_ids_off_by_one(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """Every block but the first is taken for the one before it."""
    return right(q, k, v, torch.where(selection > 0, selection - 1, selection), **rest)


@fault("selection", "method:retrofit_padding", seen="llama.cpp#26338", cause="padding")
@wrapping("msa.padding.plan_packing")
def blocks_anchored_to_cache_slots(
    right: Given, mask: Given, batch: int, q_len: int, k_len: int, at: Tensor
) -> Given:
    """Padding slots count as tokens, so blocks move with the padding."""
    return right(None, batch, q_len, k_len, at)


@fault("selection", "correctness:topk-1", seen="MoBA#26", cause="everything is attended")
@wrapping(_ATTENTION)
def one_block_means_everything(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """k = 1 silently becomes full attention."""
    chosen = everything(selection, rest) if selection.shape[-1] == 1 else selection
    return right(q, k, v, chosen, **rest)


@fault("selection", _LENGTHS, seen="flashinfer#2584", cause="ties are broken")
@wrapping(_BEST)
def ties_go_to_the_higher_block(
    right: Given, scores: Tensor, local: Tensor, kept: int, local_blocks: int, sinks: int
) -> Tensor:
    """Among equal scores the newer block wins."""
    column, mine = torch.arange(scores.shape[-1]), local[:, None, None]
    rank = scores.nan_to_num(nan=-1e38, neginf=-1e38)
    rank = rank.masked_fill((column < sinks) | (column > mine - local_blocks), torch.inf)
    rank = rank.masked_fill(column > mine, -torch.inf)
    order = rank.flip(-1).sort(dim=-1, descending=True, stable=True).indices
    return (scores.shape[-1] - 1 - order)[..., :kept]


@fault(
    "selection", "correctness:many-blocks", seen="sglang#36807", cause="from there on never scored"
)
@wrapping(_SCORES)
def candidate_buffer_overflows(right: Given, q_idx: Tensor, keys: Tensor, *rest: Given) -> Tensor:
    """Only the first 4096 blocks are candidates: right at 64K tokens, wrong beyond."""
    scores: Tensor = right(q_idx, keys, *rest)
    scores[..., 4096:-1] = -torch.inf
    return scores


@fault("selection", _LENGTHS, seen="vllm#49896", cause="a NaN score")
@wrapping(_BEST)
def nan_ranks_first(right: Given, scores: Tensor, *rest: Given) -> Given:
    """A NaN score beats every number."""
    return right(scores.nan_to_num(nan=3e38, neginf=-torch.inf), *rest)


@fault("selection", _LENGTHS)
@wrapping(_SELECT)
def nan_becomes_an_id(right: Given, scores: Tensor, *rest: Given) -> Tensor:
    """Where a score is NaN, a garbage id is emitted."""
    chosen: Tensor = right(scores, *rest)
    broken = scores.isnan().any(-1, keepdim=True)
    return torch.where(broken & (chosen > 0), 2**31 - 1, chosen).int()


@fault("selection", "correctness:group-of-8", cause="lower precision")
@wrapping(_SCORES)
def scores_in_bfloat16(right: Given, q_idx: Tensor, keys: Tensor, *rest: Given) -> Given:
    """Scores are rounded to bfloat16 before they are ranked."""
    return right(q_idx, keys, *rest).bfloat16().float()


@fault("selection", _GROUPS, cause="first half of the index dimension")
@wrapping(_SCORES)
def half_of_the_index_channels(right: Given, q_idx: Tensor, keys: Tensor, *rest: Given) -> Given:
    """Only the first half of the index dimension is multiplied."""
    half = q_idx.shape[-1] // 2
    return right(q_idx[..., :half], keys[..., :half].contiguous(), *rest)


@fault("selection", _GROUPS, cause="the magnitude of a product")
@wrapping(_SCORES)
def absolute_scores(
    right: Given, q_idx: Tensor, keys: Tensor, first: int, block: int, scale: float
) -> Tensor:
    """Large negative products count as large."""
    return pooled(token_scores(q_idx, keys, scale).abs(), first, block, best)


@fault("selection", _GROUPS)
@wrapping(_SELECT)
def empty_slots_come_first(right: Given, *args: Given) -> Given:
    """Selections are descending, with the empty entries in front."""
    return right(*args).flip(-1)


@fault("selection", "correctness:topk-16")
@wrapping(_SELECT)
def a_block_twice(right: Given, *args: Given) -> Tensor:
    """The second best block is lost to a copy of the best."""
    chosen: Tensor = right(*args).clone()
    if chosen.shape[-1] > 2:
        chosen[..., 1] = torch.where(chosen[..., 1] >= 0, chosen[..., 0], chosen[..., 1])
    return chosen


@fault("selection", "method:retrofit", "quality:msa_facts")
@wrapping("msa.retrofit_settings.RetrofitSettings.from_config")
def retrofit_forgets_the_scorer(right: Given, config: Given) -> Given:
    """The retrofit reads its settings, and always takes the same wrong scorer."""
    import dataclasses

    return dataclasses.replace(right(config), scorer="mean")


@fault("selection", "correctness:topk-48")
@wrapping(_SELECT)
def budget_of_at_most_32(
    right: Given, scores: Tensor, local: Tensor, topk: int, *rest: Given
) -> Tensor:
    """A buffer of 32 blocks: larger budgets are cut in silence."""
    chosen: Tensor = right(scores, local, min(topk, 32), *rest)
    return torch.nn.functional.pad(chosen, (0, topk - chosen.shape[-1]), value=-1)


@fault("selection", "correctness:many-blocks")
@wrapping(_SCORES)
def blocks_beyond_8192_unseen(right: Given, *args: Given) -> Tensor:
    """Blocks from the 8192nd on, but for the last, are never candidates."""
    scores: Tensor = right(*args)
    scores[..., 8192:-1] = -torch.inf
    return scores
