# ruff: noqa: ARG001 - a fault often is an argument that nobody reads
"""Cheats: answers that were not computed, promises instead of results, harm to the inputs."""

from __future__ import annotations

import sys
import time

import torch
from torch import Tensor

from msa_suites.faults.code import Code
from msa_suites.faults.table import Given, fault, wrapping

_ATTENTION = "msa.fast.attention.sparse_attention"
_ATTEND = "msa.fast.pipeline.attend"
_LENGTHS = "correctness:lengths-127-128-129"
_SPEED = "speed:speed/chunk/4096/low"

_kept: dict[Given, Given] = {}


@fault("cheat", _LENGTHS, _SPEED, seen="KernelBench#165", cause="the output is all zero")
@wrapping(_ATTENTION)
def all_zero_output(right: Given, q: Tensor, *tensors: Tensor, **rest: Given) -> Given:
    """Zeros, in case they are within an absolute tolerance."""
    _, lse = right(q, *tensors, **rest)
    return torch.zeros_like(q), lse


@fault("cheat", _LENGTHS, seen="TensorRT-LLM#18034", cause="an earlier call")
@wrapping(_ATTENTION)
def output_of_the_first_call(right: Given, q: Tensor, *tensors: Tensor, **rest: Given) -> Given:
    """The output buffer of a shape is written once."""
    return _kept.setdefault(("stale", q.shape), right(q, *tensors, **rest))


# A call over a pipe finds its inputs at new addresses; timed calls reuse their buffers.
@fault("cheat", _SPEED)
@wrapping(_ATTENTION)
def answers_kept_by_address(right: Given, q: Tensor, *tensors: Tensor, **rest: Given) -> Given:
    """An input at a known address gets the answer from before."""
    key = ("address", q.data_ptr(), q.shape, tensors[-1].shape)
    if key not in _kept:
        _kept[key] = (q, right(q, *tensors, **rest))  # holds q: its address stays taken
    return _kept[key][1]


@fault("cheat", _LENGTHS)
@wrapping(_ATTENTION)
def one_buffer_for_all_results(right: Given, q: Tensor, *tensors: Tensor, **rest: Given) -> Given:
    """A later call overwrites the result of an earlier one."""
    out, lse = right(q, *tensors, **rest)
    buffer = _kept.setdefault(("buffer", q.shape, q.dtype), torch.empty_like(q))
    return buffer.copy_(out), lse


@fault("cheat", _SPEED)
@wrapping(_ATTEND)
def timed_answers_kept_by_content(
    right: Given, q: Tensor, *tensors: Tensor, **rest: Given
) -> Given:
    """Queries that were seen before get the answer from before, whatever the values are."""
    key = ("content", q.shape, float(q.flatten()[:64].sum()))
    if key not in _kept:
        _kept[key] = right(q, *tensors, **rest)
    return _kept[key]


@fault("cheat", "speed:speed/select_blocks/4096")
@wrapping("msa.fast.selecting.select_blocks")
def selection_kept_by_address(right: Given, scores: Tensor, *rest: Given, **more: Given) -> Given:
    """Scores at a known address get the selection from before."""
    key = ("selection", scores.data_ptr(), scores.shape)
    if key not in _kept:
        _kept[key] = (scores, right(scores, *rest, **more))
    return _kept[key][1]


@fault("cheat", _SPEED)
@wrapping(_ATTEND)
def index_branch_kept_by_address(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """Index queries at a known address are not scored again: attention is computed, and fast."""
    from msa import fast

    q, k, v, q_idx, _ = tensors
    key = ("index", q_idx.data_ptr(), q_idx.shape)
    if key not in _kept:
        _kept[key] = (q_idx, right(*tensors, **rest)[1])
    selection = _kept[key][1]
    names = ("cu_q", "cu_k", "block", "scale")
    shared = {name: rest[name] for name in names}
    return fast.sparse_attention(q, k, v, selection, **shared)[0], selection


@fault("cheat", _LENGTHS)
@wrapping(_ATTENTION)
def inputs_scaled_in_place(
    right: Given, q: Tensor, *tensors: Tensor, scale: float, **rest: Given
) -> Given:
    """The queries are overwritten with scaled ones."""
    result = right(q, *tensors, scale=scale, **rest)
    q.mul_(scale)
    return result


@fault("cheat", _SPEED)
@wrapping(_ATTEND)
def every_second_call_answered_from_memory(
    right: Given, q: Tensor, *tensors: Tensor, **rest: Given
) -> Given:
    """Odd calls on an address are computed, even ones get the answer of the call before."""
    key = ("turns", q.data_ptr(), q.shape)
    count, _, answer = _kept.get(key, (0, q, None))
    if count % 2 == 0:
        answer = right(q, *tensors, **rest)
    _kept[key] = (count + 1, q, answer)  # holds q: its address stays taken
    return answer


class _Promise(torch.Tensor):
    """A tensor that says it is one; what it stands for could be computed when it is read."""


@fault("cheat", _LENGTHS)
@wrapping(_ATTENTION)
def promise_instead_of_a_result(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """Work moved behind the clock: a tensor subclass is returned at once."""
    out, lse = right(*tensors, **rest)
    return out.as_subclass(_Promise), lse


@fault("cheat", _LENGTHS, cause="lower precision")
@wrapping(_ATTENTION)
def precision_lowered(
    right: Given, q: Tensor, k: Tensor, v: Tensor, *rest: Given, **more: Given
) -> Given:
    """float32 is computed in bfloat16."""
    out, lse = right(q.bfloat16(), k.bfloat16(), v.bfloat16(), *rest, **more)
    return out.to(q.dtype), lse


@fault("cheat", _LENGTHS, "work:prefill-4096-low", cause="half of the selected blocks")
@wrapping(_ATTENTION)
def half_of_the_blocks_attended(
    right: Given, q: Tensor, k: Tensor, v: Tensor, selection: Tensor, **rest: Given
) -> Given:
    """The selection is reported whole, and attended in part."""
    fewer = selection.clone()
    fewer[..., : fewer.shape[-1] // 2] = -1
    return right(q, k, v, fewer, **rest)


@fault("cheat", "work:prefill-4096-low")
def attended_less_and_reported_less(code: Code) -> None:
    """One block fewer is selected, reported and attended: faster, and not the method."""

    def make(right: Given) -> Given:
        def fewer(scores: Tensor, local: Tensor, topk: int, *rest: Given) -> Tensor:
            chosen: Tensor = right(scores, local, max(topk - 1, 1), *rest)
            return torch.nn.functional.pad(chosen, (0, topk - chosen.shape[-1]), value=-1)

        return fewer

    code.wrap("msa.fast.selecting.select_rows", make)


def _half_as_fast(clock: Given) -> Given:
    return lambda: type(clock())(clock() / 2)


@fault("cheat", _SPEED)
def timer_replaced_and_slower(code: Code) -> None:
    """The clock is made to run slow, and the call takes longer."""
    for name in ("perf_counter_ns", "perf_counter", "monotonic", "time"):
        right = getattr(time, name)
        setattr(time, name, _half_as_fast(right))

    def make(right: Given) -> Given:
        def slower(*args: Given, **kwargs: Given) -> Given:
            time.sleep(0.08)
            return right(*args, **kwargs)

        return slower

    code.wrap(_ATTEND, make)


@fault("cheat", _SPEED)
def clock_of_the_worker_set_back(code: Code) -> None:
    """The clock that the worker read before it imported anything gives back half of each call."""
    # Which of the two depends on how the process was started.
    worker: Given = sys.modules.get("msa_harness.worker") or sys.modules["__main__"]
    right, given_back = worker._clock, [0]
    worker._clock = lambda: right() - given_back[0]

    def make(attend: Given) -> Given:
        def shorter(*args: Given, **kwargs: Given) -> Given:
            started = right()
            result = attend(*args, **kwargs)
            given_back[0] += (right() - started) // 2
            return result

        return shorter

    code.wrap(_ATTEND, make)


@fault("cheat", _LENGTHS)
@wrapping(_ATTENTION)
def the_call_ends_the_process(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """The process exits with status 0 in the middle of a call."""
    import os

    os._exit(0)


@fault("cheat", _LENGTHS)
@wrapping(_ATTENTION)
def the_call_never_ends(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """A call hangs."""
    while True:
        time.sleep(1)
