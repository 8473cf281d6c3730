# ruff: noqa: ARG001 - a fault often is an argument that nobody reads
"""Faults of what a row may see: the triangle, empty rows, empty entries, unused slots."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.faults import plain
from msa_suites.faults.table import Given, fault, wrapping

_ATTENTION = "msa.fast.attention.sparse_attention"
_DECODE = "msa.fast.decoding.sparse_decode"
_ROWS = "msa.fast.decoding._decode_rows"
_COMBINE = "msa.fast.combining.combine"
_LENGTHS = "correctness:lengths-127-128-129"
_DECODED = "correctness:decode"


@fault("masking", _LENGTHS, cause="future tokens of the local block")
@wrapping(_ATTENTION)
def future_of_the_local_block(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """The query's own block is attended whole, its future among it."""

    def rule(position: Tensor, token: Tensor, block: int) -> Tensor:
        return token // block <= position // block

    return plain.attend(tensors, rest, rule=rule)


@fault("masking", _LENGTHS, cause="positions are one too high")
@wrapping(_ATTENTION)
def next_token_visible(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """The causal mask is off by one."""

    def rule(position: Tensor, token: Tensor, block: int) -> Tensor:
        return token <= position + 1

    return plain.attend(tensors, rest, rule=rule)


@fault("masking", _LENGTHS, cause="positions are one too low")
@wrapping(_ATTENTION)
def own_token_hidden(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """The causal mask is off by one the other way."""

    def rule(position: Tensor, token: Tensor, block: int) -> Tensor:
        return token < position.clamp_min(1)

    return plain.attend(tensors, rest, rule=rule)


@fault("masking", "correctness:chunk-inside-block", seen="fla#417", cause="top-left")
@wrapping(_ATTENTION)
def triangle_at_the_top_left(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """With more keys than queries the triangle starts at the first key."""
    return plain.attend(tensors, rest, top_left=True)


@fault("masking", _LENGTHS, seen="NeMo guard test", cause="additive mask")
@wrapping(_ATTENTION)
def additive_mask_leaks(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """Hidden tokens get a penalty that is not low enough."""

    def softmax(logits: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits + torch.where(kept, 0.0, -8.0)
        lse = logits.logsumexp(-1)
        return torch.exp(logits - lse[..., None]), lse

    return plain.attend(tensors, rest, softmax=softmax)


@fault("masking", _LENGTHS, seen="vllm#49054", cause="rows without any block")
@wrapping(_ATTENTION)
def row_without_blocks_is_nan(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """A row that selected nothing gives NaN instead of zero."""
    out, lse = right(*tensors, **rest)
    empty = lse == -torch.inf
    return out.masked_fill(empty[..., None], torch.nan), lse


@fault("masking", _LENGTHS, seen="vllm#49054", cause="an empty part")
@wrapping(_COMBINE)
def empty_parts_merge_to_nan(right: Given, outs: Tensor, lses: Tensor) -> Given:
    """-inf minus -inf in the merge."""
    top = lses.amax(0)
    weight = torch.exp(lses - top)
    total = weight.sum(0)
    return (outs * weight[..., None]).sum(0) / total[..., None], top + total.log()


@fault("masking", _LENGTHS, seen="vllm#48364", cause="an empty part")
@wrapping(_COMBINE)
def first_empty_part_poisons_the_merge(right: Given, outs: Tensor, lses: Tensor) -> Given:
    """An empty first part is multiplied with a weight of zero, and holds NaN."""
    out, lse = right(outs, lses)
    return out + torch.where(lses[0] == -torch.inf, 0.0, 0.0)[..., None] * outs[0], lse


@fault("masking", _LENGTHS, cause="read as the first block")
@wrapping(_ATTENTION)
def empty_entry_is_the_first_block(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """-1 in a selection is read as block 0."""
    return right(q, k, v, selection.clamp_min(0), **rest)


@fault(
    "masking",
    "correctness:decode-several",
    _DECODED,
    seen="vllm#54597",
    cause="looked up in the page table",
)
@wrapping(_DECODE)
def sentinel_looked_up_in_the_page_table(
    right: Given, q: Tensor, k_pages: Tensor, v_pages: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """-1 in a selection finds a page, and what is on it reaches the sum."""
    out, lse = right(q, k_pages, v_pages, selection, **rest)
    touched = v_pages[rest["page_table"][:, -1].long().clamp_min(0)].sum((2, 3))
    added = torch.where((selection < 0).any(-1), touched[:, None].float(), 0.0)
    share = q.shape[2] // k_pages.shape[1]
    return (out + added.repeat_interleave(share, -1)[..., None]).to(q.dtype), lse


@fault("masking", _DECODED, seen="vllm-ascend#13391", cause="the tail of the last page")
@wrapping(_ROWS)
def tail_of_the_last_page_read(right: Given, q: Tensor, keys: Tensor, *rest: Given) -> Given:
    """The last page is read whole: its unused slots hold garbage."""
    values, seen, scale = rest
    whole = torch.where(seen > 0, keys.shape[2], 0)
    return right(q, keys, values, whole, scale)


@fault("masking", _LENGTHS, cause="everything is attended")
@wrapping(_ATTENTION)
def every_block_attended(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """Dense attention under the name of a sparse one."""
    return right(q, k, v, plain.everything(selection, rest), **rest)
