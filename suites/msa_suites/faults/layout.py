"""Faults of where numbers lie in memory, and of which sequence, head or page they belong to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msa_suites.faults.table import Given, fault, wrapping

_ATTENTION = "msa.fast.attention.sparse_attention"
_DECODE = "msa.fast.decoding.sparse_decode"
_LENGTHS = "correctness:lengths-127-128-129"


@fault("layout", "correctness:tokens-equal-heads", seen="vllm#48603", cause="the layout is swapped")
@wrapping(_ATTENTION)
def selection_read_heads_first(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """[T, H, k] read as [H, T, k]: no shape shows it where T equals H."""
    rows, groups, width = selection.shape
    swapped = selection.reshape(groups, rows, width).transpose(0, 1)
    return right(q, k, v, swapped.contiguous(), **rest)


@fault("layout", _LENGTHS, cause="the layout is swapped")
@wrapping(_ATTENTION)
def output_written_heads_first(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """The output is written as [H, T, D] and read as [T, H, D]."""
    out, lse = right(*tensors, **rest)
    return out.transpose(0, 1).reshape(out.shape), lse


def _as_dense(x: Tensor) -> Tensor:
    strides = [math.prod(x.shape[i + 1 :]) for i in range(x.ndim)]
    return x.as_strided(x.shape, strides)


@fault("layout", _LENGTHS, seen="TensorRT-LLM#17285", cause="strides")
@wrapping(_ATTENTION)
def strides_of_the_selection_ignored(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """A selection that is a view is read as if it were dense."""
    return right(q, k, v, _as_dense(selection), **rest)


@fault("layout", _LENGTHS, cause="strides")
@wrapping(_ATTENTION)
def strides_of_the_keys_ignored(
    right: Given, q: Tensor, k: Tensor, v: Tensor, *rest: Given, **more: Given
) -> Given:
    """Keys that are a view are read as if they were dense."""
    return right(q, _as_dense(k), v, *rest, **more)


@fault("layout", "correctness:decode", seen="vllm#46204", cause="tokens first (NHD)")
@wrapping("msa.fast.decoding._take")
def pages_read_tokens_first(right: Given, store: Tensor, *rest: Given) -> Given:
    """[page, head, token, D] read as [page, token, head, D]."""
    count, heads, block, dim = store.shape
    other = store.reshape(count, block, heads, dim).transpose(1, 2).contiguous()
    return right(other, *rest)


@fault("layout", "correctness:group-of-16", seen="b12x#24", cause="heads 8 to 15 never written")
@wrapping(_ATTENTION)
def large_groups_partly_stored(
    right: Given, q: Tensor, k: Tensor, *rest: Given, **more: Given
) -> Given:
    """Of a group of more than 8 heads, 8 are stored."""
    out, lse = right(q, k, *rest, **more)
    heads = q.shape[1] // k.shape[1]
    late = (torch.arange(q.shape[1]) % heads) >= 8
    return out.masked_fill(late[None, :, None], 0.0), lse


@fault("layout", _LENGTHS, seen="surogate#110", cause="added twice")
@wrapping(_ATTENTION)
def batch_offset_added_twice(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """Block ids of later sequences are moved by where their keys start."""
    moved, cu_q = selection.clone(), rest["cu_q"]
    for b in range(1, len(cu_q) - 1):
        part = moved[int(cu_q[b]) : int(cu_q[b + 1])]  # a view
        part[part >= 0] += int(rest["cu_k"][b]) // rest["block"]
    return right(q, k, v, moved, **rest)


@fault("layout", _LENGTHS, seen="fla NSA#23", cause="borders")
@wrapping("msa.packing.segments")
def batch_is_one_sequence(right: Given, cu_q: Tensor, cu_k: Tensor) -> Given:
    """The borders between packed sequences are lost."""
    return right(cu_q[[0, -1]], cu_k[[0, -1]])


@fault("layout", "correctness:group-of-3", cause="h % Hkv")
@wrapping(_ATTENTION)
def heads_assigned_by_modulo(
    right: Given, q: Tensor, k: Tensor, *rest: Given, **more: Given
) -> Given:
    """Head h belongs to group h % Hkv instead of h // R."""
    groups = k.shape[1]
    order = torch.arange(q.shape[1]).view(-1, groups).T.flatten()
    out, lse = right(q[:, order].contiguous(), k, *rest, **more)
    back = order.argsort()
    return out[:, back].contiguous(), lse[:, back].contiguous()


@fault("layout", "correctness:decode", cause="page table of the first")
@wrapping(_DECODE)
def every_request_reads_the_first_table(
    right: Given, *tensors: Tensor, page_table: Tensor, **rest: Given
) -> Given:
    """The page table of request 0 serves all requests."""
    shared = page_table[:1].expand_as(page_table).clamp_min(0).contiguous()
    return right(*tensors, page_table=shared, **rest)


@fault("layout", "correctness:decode", cause="order of their numbers")
@wrapping(_DECODE)
def pages_taken_in_order(
    right: Given, *tensors: Tensor, page_table: Tensor, **rest: Given
) -> Given:
    """Pages are read in the order of their numbers."""
    return right(*tensors, page_table=page_table.sort(1).values, **rest)


@fault("layout", _LENGTHS)
@wrapping(_ATTENTION)
def last_rows_skipped(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """Rows behind the last whole tile of 128 are never written."""
    out, lse = right(*tensors, **rest)
    whole = len(out) // 128 * 128
    if whole:
        out[whole:] = 0
    return out, lse
