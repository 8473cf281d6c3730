"""Other values of the same shapes, in float32, each made to bring out one kind of mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from msa.packing import segments
from msa_suites.case import Case
from msa_suites.inputs import Inputs, drawn


def mass_ties(inputs: Inputs) -> Inputs:
    """Index vectors of a few small integers: most block scores tie, exactly, in every precision."""
    q_idx, k_idx = (x.sign() * (x.abs() > 1.2) for x in (inputs.q_idx, inputs.k_idx))
    q_idx[..., 4:] = 0
    return replace(inputs, q_idx=q_idx, k_idx=k_idx)


def lowest_local(inputs: Inputs, block: int) -> Inputs:
    """Index vectors under which newer blocks score lower: an unforced local block is never kept."""
    q_idx, k_idx = torch.ones_like(inputs.q_idx), 0.01 * inputs.k_idx
    for s in segments(inputs.cu_q, inputs.cu_k):
        age = torch.arange(s.k_len) // block
        k_idx[s.k_start : s.k_stop] -= 0.125 * age[:, None, None]
    return replace(inputs, q_idx=q_idx, k_idx=k_idx)


def negative_scores(inputs: Inputs) -> Inputs:
    """Index vectors whose scores are all negative: a zero that slips in anywhere ranks first."""
    q_idx, k_idx = inputs.q_idx.abs(), -inputs.k_idx.abs()
    return replace(inputs, q_idx=q_idx, k_idx=k_idx)


def large_logits(inputs: Inputs) -> Inputs:
    """Logits near +98 and -98 in turn: exp of them overflows or vanishes unless it is shifted."""
    q, k = inputs.q.clone(), inputs.k.clone()
    size = round((98 * q.shape[-1] ** 0.5) ** 0.5)
    k[..., 0] = size
    q[..., 0] = size * (1 - 2 * (torch.arange(len(q)) % 2))[:, None]
    return replace(inputs, q=q, k=k)


def large_index_logits(inputs: Inputs) -> Inputs:
    """The same of attention and index branch, whose signs differ in every second pair of rows."""
    x = large_logits(inputs)
    q_idx, k_idx = x.q_idx.clone(), x.k_idx.clone()
    size = round((98 * q_idx.shape[-1] ** 0.5) ** 0.5)
    k_idx[..., 0] = size
    q_idx[..., 0] = size * (1 - (torch.arange(len(q_idx)) % 4) // 2 * 2)[:, None]
    return replace(x, q_idx=q_idx, k_idx=k_idx)


def own_keys(inputs: Inputs) -> Inputs:
    """An index key per group, which ``block_scores`` allows: ``k_idx`` ``[Tk, Hkv, Di]``."""
    shifted = [inputs.k_idx[:, 0].roll(g, 0) for g in range(inputs.q_idx.shape[1])]
    return replace(inputs, k_idx=torch.stack(shifted, 1))


#: How the values of a case are changed for a check.
VARIANTS: dict[str, Callable[[Case, Inputs], Inputs]] = {
    "plain": lambda case, inputs: inputs,  # noqa: ARG005  # one signature for all
    "other": lambda case, inputs: drawn(case, seed=case.seed + 1),  # noqa: ARG005
    "ties": lambda case, inputs: mass_ties(inputs),  # noqa: ARG005
    "lowest_local": lambda case, inputs: lowest_local(inputs, case.block),
    "negative": lambda case, inputs: negative_scores(inputs),  # noqa: ARG005
    "large": lambda case, inputs: large_logits(inputs),  # noqa: ARG005
    "large_index": lambda case, inputs: large_index_logits(inputs),  # noqa: ARG005
    "own_keys": lambda case, inputs: own_keys(inputs),  # noqa: ARG005
}
