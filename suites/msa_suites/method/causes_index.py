"""Mistakes around a trained index branch, each played through with the oracle's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from msa_suites.method import oracle
from msa_suites.method.checks import agree
from msa_suites.method.oracle_index import RIGHT, SHAPE, TEXT_WEIGHTS, WARMUP, Rule, learned, logits

#: Relative error within which a mistake explains losses or a factor.
_ALIKE = 1e-3


def of_chunks(
    got: Sequence[Tensor],
    rows: Sequence[Sequence[int]],
    weights: Mapping[str, Tensor],
    chunks: Sequence[int],
) -> str:
    """The mistake that gives these logits of rows padded on the left, or ""."""
    wide = max(len(row) for row in rows)
    starts = [
        sorted({max(end - wide + len(row), 0) for end in accumulate(chunks, initial=0)})
        for row in rows
    ]
    tried = (
        ("index keys of earlier chunks are lost", [_lost(one) for one in starts]),
        (
            "positions of the index branch are counted from the chunk, not from the sequence",
            [_from_chunks(one) for one in starts],
        ),
    )
    for words, rules in tried:
        if not agree("", got, logits(rows, weights, rules)[0]):
            return words
    return ""


def _lost(starts: Sequence[int]) -> Rule:
    def found(keys: Tensor, token: int) -> Tensor:
        keys = keys.clone()
        keys[: max(start for start in starts if start <= token)] = 0
        return keys

    return replace(RIGHT, found=found)


def _from_chunks(starts: Sequence[int]) -> Rule:
    sizes = [stop - start for start, stop in pairwise(starts)]

    def turn(x: Tensor, shape: oracle.Shape) -> Tensor:
        return torch.cat([oracle.rotated(part, shape) for part in x.split(sizes)])

    return replace(RIGHT, turn=turn)


def of_learning(
    losses: Sequence[Tensor],
    rows: Sequence[Sequence[int]],
    weights: Mapping[str, Tensor],
    phase: str,
) -> str:
    """The mistake that gives these losses of the layers, or ""."""
    warm = phase == "warmup"
    right = WARMUP if warm else RIGHT
    tried = [
        ("the teacher is one head of a group, not the mean of all", replace(right, teach=_one)),
        (
            "the loss of the warm-up is over the selected blocks, not over all that is visible"
            if warm
            else "the loss is over all that is visible, not over the selected blocks",
            replace(right, learns=not right.learns),
        ),
    ]
    for words, rule in tried:
        if _close(torch.stack(list(losses)), torch.stack(learned(rows, weights, rule).losses)):
            return words
    return ""


def _one(weight: Tensor) -> Tensor:
    return weight[:, 0]


def of_text(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> str:
    """The mistake in attention's backward that shows in the last layer, or ""."""
    queries, _, values = TEXT_WEIGHTS[-3:]
    if values not in got:
        return "no gradient passes through sparse attention"
    if not _close(got[values], want[values]):
        return ""
    if _close(got[queries] * SHAPE.D**-0.5, want[queries]):
        return "the scale of the logits is missing from attention's backward"
    return ""


def _close(one: Tensor, other: Tensor) -> bool:
    return float((one.double() - other).norm()) <= _ALIKE * float(other.norm())
