# ruff: noqa: ARG001 - a fault often is an argument that nobody reads
"""Faults of arithmetic: scales, precision, overflow, order, log-sum-exp."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msa_suites.faults import plain
from msa_suites.faults.table import Given, fault, wrapping

_ATTENTION = "msa.fast.attention.sparse_attention"
_SCORES = "msa.fast.scoring.score_rows"
_LENGTHS = "correctness:lengths-127-128-129"


@fault("numbers", _LENGTHS, cause="the scale of the logits is missing")
@wrapping(_ATTENTION)
def softmax_scale_missing(right: Given, *tensors: Tensor, scale: float, **rest: Given) -> Given:
    """Logits are not scaled."""
    return right(*tensors, scale=1.0, **rest)


@fault("numbers", _LENGTHS, cause="the scale that is given is ignored")
@wrapping(_ATTENTION)
def softmax_scale_assumed(
    right: Given, q: Tensor, *tensors: Tensor, scale: float, **rest: Given
) -> Given:
    """The scale that is given is ignored for D ** -0.5."""
    return right(q, *tensors, scale=q.shape[-1] ** -0.5, **rest)


@fault("numbers", _LENGTHS, cause="the scale is missing")
@wrapping(_SCORES)
def index_scale_missing(
    right: Given, q_idx: Tensor, keys: Tensor, first: int, block: int, scale: float
) -> Given:
    """Block scores are raw products: the order is right, the numbers are not."""
    return right(q_idx, keys, first, block, 1.0)


@fault("numbers", "correctness:bfloat16-long", cause="lower precision")
@wrapping(_ATTENTION)
def sums_in_bfloat16(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """Values are summed in bfloat16."""

    def add(weight: Tensor, value: Tensor) -> Tensor:
        total = torch.zeros(*weight.shape[:2], value.shape[-1], dtype=torch.bfloat16)
        for start in range(0, weight.shape[-1], 16):
            part = weight[..., start : start + 16] @ value[start : start + 16]
            total = total + part.bfloat16()
        return total.float()

    return plain.attend(tensors, rest, add=add)


@fault("numbers", _LENGTHS, cause="1.02 times")
@wrapping(_ATTENTION)
def output_two_per_cent_too_large(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """Every output is a little too large."""
    out, lse = right(*tensors, **rest)
    return (out * 1.02).to(out.dtype), lse


@fault("numbers", _LENGTHS, cause="the maximum is not taken off")
@wrapping(_ATTENTION)
def softmax_without_shift(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """exp of the logits themselves: large ones overflow."""

    def softmax(logits: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        weight = torch.where(kept, logits.exp(), 0.0)
        total = weight.sum(-1)
        return weight / total.clamp_min(1e-38)[..., None], total.log()

    return plain.attend(tensors, rest, softmax=softmax)


@fault("numbers", _LENGTHS, cause="the maximum is not taken off")
@wrapping(_ATTENTION)
def running_maximum_starts_at_zero(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """Rows of very negative logits underflow to nothing."""

    def softmax(logits: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.masked_fill(~kept, -torch.inf)
        top = logits.amax(-1, keepdim=True).clamp_min(0)
        weight = (logits - top).exp()
        total = weight.sum(-1, keepdim=True)
        return weight / total.clamp_min(1e-38), (top + total.log())[..., 0]

    return plain.attend(tensors, rest, softmax=softmax)


@fault("numbers", "correctness:fp8", seen="vllm#45562", cause="read as E4M3 FNUZ")
@wrapping("msa.quantized.decode")
def bytes_in_another_format(
    right: Given, name: str, x: Tensor, *rest: Given, **more: Given
) -> Given:
    """Bytes of E4M3 are read as FNUZ: half of what is meant."""
    found = right(name, x, *rest, **more)
    return found / 2 if x.dtype == torch.float8_e4m3fn else found


@fault("numbers", "correctness:fp8", seen="vllm#45562", cause="(k_descale) is dropped")
@wrapping(_ATTENTION)
def factors_of_the_keys_dropped(
    right: Given, *tensors: Tensor, k_descale: Given = None, **rest: Given
) -> Given:
    """Quantized keys are taken as they stand."""
    return right(*tensors, **rest)


@fault("numbers", "correctness:fp8-cache", cause="the first head serves all heads")
@wrapping("msa.fast.decoding._take")
def one_factor_for_all_heads_of_a_cache(
    right: Given, store: Tensor, descale: Given, *rest: Given
) -> Given:
    """Factors per tensor where they are per head."""
    return right(store, None if descale is None else descale[:1].expand_as(descale), *rest)


@fault("numbers", "correctness:fp4", cause="the high one is taken for the first")
@wrapping("msa.nvfp4.values")
def halves_of_bytes_change_places(right: Given, x: Tensor, scales: Tensor, **rest: Given) -> Given:
    """Of two elements in a byte the high half is taken for the first."""
    codes = x.view(torch.uint8)
    return right((codes << 4 | codes >> 4).view(x.dtype), scales, **rest)


@fault("numbers", "correctness:fp4-decode", cause="the scale of the next 16 channels is used")
@wrapping("msa.nvfp4.values")
def scales_of_the_next_channels(right: Given, x: Tensor, scales: Tensor, **rest: Given) -> Given:
    """Every group of 16 channels gets the scale of its neighbour."""
    return right(x, scales.view(torch.uint8).roll(-1, -1).view(scales.dtype), **rest)


@fault("numbers", "correctness:many-blocks", seen="flashinfer#4982", cause="offset of 4096 blocks")
@wrapping("msa.fast.scoring.index_keys")
def offsets_overflow(right: Given, k_idx: Tensor) -> Tensor:
    """Offsets of 16 bits: keys behind token 65536 are read from the start."""
    keys: Tensor = right(k_idx)
    if keys.shape[1] > 1 << 16:
        keys = torch.cat([keys[:, : 1 << 16], keys[:, : keys.shape[1] - (1 << 16)]], 1)
    return keys


@fault("numbers", _LENGTHS, seen="DeepGEMM#392", cause="a race")
@wrapping(_ATTENTION)
def result_moves_between_runs(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """A race: identical calls differ in the last bits."""
    out, lse = right(*tensors, **rest)
    return (out + 3e-7 * torch.rand_like(out, dtype=torch.float32)).to(out.dtype), lse


@fault("numbers", _LENGTHS, cause="base 2")
@wrapping(_ATTENTION)
def log_sum_exp_to_base_two(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """LSE in another base: merging partial results goes wrong."""
    out, lse = right(*tensors, **rest)
    return out, lse / math.log(2)


@fault("numbers", "correctness:group-of-3", cause="the result of the first")
@wrapping(_ATTENTION)
def log_sum_exp_of_the_first_head(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """One LSE for all heads."""
    out, lse = right(*tensors, **rest)
    return out, lse[:, :1].expand_as(lse).contiguous()


@fault("numbers", _LENGTHS)
@wrapping("msa.fast.combining.combine")
def parts_merged_without_weights(right: Given, outs: Tensor, lses: Tensor) -> Given:
    """Partial results are averaged."""
    return outs.mean(0), lses.logsumexp(0)


@fault("numbers", "correctness:float16")
@wrapping(_ATTENTION)
def output_in_float32(right: Given, *tensors: Tensor, **rest: Given) -> Given:
    """The output has another dtype than the queries."""
    out, lse = right(*tensors, **rest)
    return out.float(), lse


@fault("numbers", _LENGTHS)
@wrapping("msa.fast.selecting.select_blocks")
def selection_in_int64(right: Given, *args: Given, **rest: Given) -> Given:
    """Block ids have another dtype than promised."""
    return right(*args, **rest).long()


@fault("numbers", "correctness:dim-128-block-128")
@wrapping(_ATTENTION)
def no_kernel_for_one_shape(right: Given, q: Tensor, *tensors: Tensor, **rest: Given) -> Given:
    """A head dim that is promised raises."""
    if q.shape[-1] == 128:
        raise RuntimeError("no kernel for a head dim of 128")
    return right(q, *tensors, **rest)


@fault("numbers", "correctness:length-4097")
@wrapping("msa.fast.threads.for_each")
def a_piece_lost_between_threads(right: Given, work: Given, items: Given, *, spread: bool) -> None:
    """Where several threads share the work, one piece of it is never done."""
    pieces = list(items)
    lost = spread and torch.get_num_threads() > 1 and len(pieces) > 1
    right(work, pieces[1:] if lost else pieces, spread=spread)
