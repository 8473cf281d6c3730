# ruff: noqa: ARG001 - a fault often is an argument that nobody reads
"""Around the layer: scorers other than the maximum, settings that are not honoured, costs."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.faults.table import Given, fault, wrapping


@fault("selection", "method:scorers")
@wrapping("msa.scorers.quest._running_extremes")
def quest_bound_of_maxima_only(right: Given, keys: Tensor, block: int) -> Tensor:
    """A channel's smallest key is taken for its largest: a negative query has no bound."""
    extremes = right(keys, block)
    most = extremes[..., : extremes.shape[-1] // 2]
    return torch.cat([most, -most], -1)


@fault("selection", "method:scorers")
@wrapping("msa.scorers.mean._running_mean")
def mean_over_the_whole_block(right: Given, keys: Tensor, block: int) -> Tensor:
    """A query's own block is divided by its size, not by what the query sees of it."""
    counts = torch.arange(1, block + 1, device=keys.device)
    means: Tensor = right(keys, block)
    return means * (counts / block)[:, None, None]


@fault("selection", "method:scorers")
@wrapping("msa.scorers.tiles.hide_future_blocks", within="msa.scorers.recent")
def oldest_blocks_for_recent_ones(right: Given, scores: Tensor, *rest: Given) -> Given:
    """The sliding window slides to the wrong end."""
    return right(-scores, *rest)


@fault("selection", "method:scorers")
@wrapping("msa.scorers.tiles.hide_future_tokens", within="msa.scorers.oracle")
def oracle_that_sees_the_future(right: Given, token: Tensor, *rest: Given) -> Given:
    """Mass that falls on later tokens counts."""
    return token


@fault("selection", "method:scorers")
@wrapping("msa.scorers.random._mixed")
def random_scores_with_a_pattern(right: Given, x: Tensor) -> Given:
    """The random control is no control: its bits are not scrambled."""
    return x


@fault("selection", "method:config")
@wrapping("msa.config.MSAConfig.__post_init__")
def sink_blocks_of_the_checkpoint_forgotten(right: Given, config: Given) -> None:
    """The entry for forced first blocks is read as zero."""
    right(config)
    object.__setattr__(config, "sink_blocks", 0)


@fault("selection", "method:config")
@wrapping("msa.config.MSAConfig.__init__")
def half_the_budget_by_default(right: Given, config: Given, *given: Given, **named: Given) -> None:
    """Who says nothing gets eight blocks instead of the paper's sixteen."""
    right(config, *given, **({"topk": 8} | named))


@fault("selection", "method:reference")
@wrapping("msa.reference.block_scores")
def specification_with_a_mean(right: Given, q: Tensor, k: Tensor, **rest: Given) -> Given:
    """The specification that people read pools otherwise than the code that runs."""
    block, cu_k = rest["block"], rest["cu_k"]
    first = k[: cu_k[1]]
    pooled = torch.cat([b.mean(0, keepdim=True).expand(len(b), -1, -1) for b in first.split(block)])
    return right(q, torch.cat([pooled, k[cu_k[1] :]]), **rest)


@fault("numbers", "method:cost")
@wrapping("msa.cost.attended_tokens")
def whole_blocks_counted(right: Given, position: int, *, block: int, topk: int) -> int:
    """A query is charged for the tokens of its own block that come after it."""
    return min(topk, position // block + 1) * block


@fault("selection", "method:retrofit_settings")
@wrapping("msa.retrofit_settings.RetrofitSettings.write")
def dense_layers_forgotten(right: Given, settings: Given, config: Given) -> None:
    """Layers that were to stay dense are made sparse."""
    right(settings, config)
    config.msa_dense_layers = []


@fault("masking", "method:retrofit_windows")
@wrapping("msa.retrofit_attention.has_own_mask")
def sliding_windows_ignored(right: Given, *args: Given) -> bool:
    """Layers with a sliding window see everything."""
    return False


@fault("numbers", "method:retrofit_windows")
@wrapping("msa.retrofit_attention.attention")
def scale_of_the_model_ignored(right: Given, *tensors: Given, **rest: Given) -> Given:
    """The head dim decides the softmax scale, whatever the model says."""
    return right(*tensors, **{**rest, "scaling": None})
