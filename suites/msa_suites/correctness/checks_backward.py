"""Checks of the gradients of attention over a given selection."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from msa import reference
from msa_suites.correctness.eager import eager_backward
from msa_suites.correctness.passrule import compare
from msa_suites.correctness.subject import Arguments
from msa_suites.correctness.trial import Trial

#: Bounds of gradients, in those of the forward: they pass through three products instead of two.
GRADIENT_TIMES = 3.0
_NAMES = ("dq", "dk", "dv")


def backward(t: Trial) -> None:
    """Gradients of attention by queries, keys and values."""
    _differentiate(t, t.material.selection)


def backward_empty_rows(t: Trial) -> None:
    """Rows without any block give gradients of 0, beside rows that have some."""
    chosen = t.material.selection.clone()
    chosen[::3] = -1
    chosen[1::5, -1] = -1
    _differentiate(t, chosen)


def backward_shared(t: Trial) -> None:
    """All queries share the first block, and slots are left over: none is counted twice."""
    chosen = t.material.selection.clone()
    chosen[..., 1:] = torch.where(chosen[..., 1:] == 0, -1, chosen[..., 1:])
    chosen[..., 0] = 0
    _differentiate(t, chosen)


def backward_arguments(t: Trial, chosen: Tensor) -> Arguments:
    """Tensors and keywords of ``sparse_attention_backward``."""
    x, case = t.material.inputs, t.case
    out, lse = t.material.truth_of(chosen)
    generator = torch.Generator().manual_seed(case.seed + 1)
    dout = torch.randn(x.q.shape, generator=generator).to(x.q.dtype)
    settings = {**t.material.lengths, "block": case.block, "scale": case.scale}
    return (dout, x.q, x.k, x.v, out.to(x.q.dtype), lse.float(), chosen), settings


def _differentiate(t: Trial, chosen: Tensor) -> None:
    x, exact = t.material.inputs, t.material.exactly
    given, keywords = backward_arguments(t, chosen)
    got = t.run("sparse_attention_backward", (given, keywords))
    settings: dict[str, Any] = dict(keywords)
    dout, _, _, _, out, lse, _ = given
    precise = (dout.double(), exact.q, exact.k, exact.v, out.double(), lse, chosen)
    truth = reference.sparse_attention_backward(*precise, **settings)
    eager = eager_backward(dout, x.q, x.k, x.v, chosen, **settings)
    others = _of_given_output(precise, t.material.truth_of(chosen)[0], truth, settings)
    how: dict[str, Any] = {"dtype": x.q.dtype, "times": GRADIENT_TIMES}
    parts = zip(_NAMES, got, truth, others, eager, strict=True)
    for name, mine, right, other, yardstick in parts:
        assert mine is not None
        wrong = compare(mine, right, eager=yardstick, **how)
        # Both are gradients of what was given, and the bounds hold for each.
        if wrong is not None and compare(mine, other, eager=yardstick, **how) is not None:
            search = partial(_key_cause, name, mine, truth, precise, settings)
            t.fail(name, wrong, cause="" if name == "dq" else search)


def _of_given_output(
    precise: tuple[Tensor, ...], exact: Tensor, truth: tuple[Tensor, ...], settings: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by the sum of dO times O of the output as it is given, which is rounded.

    Kernels take it from there instead of computing the output again. All logits' gradients of a row
    move by weight times the difference; where they cancel, in a row of few tokens, that shows.
    """
    dout, q, k, _, out, lse, chosen = precise
    off = settings["scale"] * (dout * (exact - out)).sum(-1, keepdim=True)
    towards, _ = reference.sparse_attention(q, k, k, chosen, **settings)
    given = (off * q, q, k, k, out, lse, chosen)
    _, _, keys = reference.sparse_attention_backward(*given, **settings)
    return truth[0] + off * towards, truth[1] + keys, truth[2]


def _key_cause(
    name: str,
    mine: Tensor,
    truth: tuple[Tensor, ...],
    precise: tuple[Tensor, ...],
    settings: dict[str, Any],
) -> str:
    """Why a gradient of keys or values is wrong where that of the queries is right."""
    right, other = (truth[_NAMES.index(one)] for one in (name, "dv" if name == "dk" else "dk"))
    mine = mine.double()
    if not bool(mine.any()) or not bool(mine.isfinite().all()):
        return ""
    if bool((mine - other).norm() <= 0.05 * other.norm()):
        return "dK and dV are swapped"
    factor = float((mine * right).sum() / right.square().sum().clamp_min(1e-300))
    few_bits, scaled = (float((mine - f * right).norm()) for f in (1.0, factor))
    if min(few_bits, scaled) <= 0.03 * float(right.norm()):
        return ""  # nothing is lost of single queries
    dout, *_, selection = precise
    full = (selection >= 0).all(-1).repeat_interleave(dout.shape[1] // selection.shape[1], 1)
    kept = reference.sparse_attention_backward(
        dout * full[..., None], *precise[1:], **settings
    )[_NAMES.index(name)]  # fmt: skip
    if bool((mine - kept).norm() <= 0.01 * kept.norm()):
        return "queries whose selection has empty slots add nothing to the gradients of keys"
    return "parts of queries that share a block are lost, or counted twice (dQ is right)"
