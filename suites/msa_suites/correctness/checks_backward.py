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
    slacks = _slacks(precise, torch.finfo(x.q.dtype).eps, settings)
    for name, mine, right, yardstick, slack in zip(_NAMES, got, truth, eager, slacks, strict=True):
        assert mine is not None
        how: dict[str, Any] = {"dtype": x.q.dtype, "times": GRADIENT_TIMES, "slack": slack}
        wrong = compare(mine, right, eager=yardstick, **how)
        if wrong is not None:
            search = partial(_key_cause, name, mine, truth, precise, settings)
            t.fail(name, wrong, cause="" if name == "dq" else search)


def _slacks(
    precise: tuple[Tensor, ...], eps: float, settings: dict[str, Any]
) -> tuple[Tensor, Tensor, None]:
    """What the rounding of ``out`` moves in each row of dq and dk: L2, float64 ``[T, H]``.

    Who takes the sum of dO times O from the rounded output that it is given, as kernels do, is off
    by up to ``eps |dO * O|`` (3.5 standard deviations of the rounding) in every logit's gradient.
    Where these cancel, in a row of few tokens, that is much of what is left.
    """
    dout, q, k, _, out, lse, chosen = precise
    off = eps * (dout * out).norm(dim=-1)
    scale = settings["scale"]
    twice = {**settings, "scale": 2 * scale}
    # Weights times keys: all logits' gradients of a row move together.
    towards, sums = reference.sparse_attention(q, k, k, chosen, **settings)
    # Of a key the shifts of its queries have unlike signs and add up in quadrature. Squared weights
    # are the weights of doubled logits, up to a factor of the row.
    _, sums_twice = reference.sparse_attention(q, k, k, chosen, **twice)
    row = (sums_twice - 2 * sums).double().exp().nan_to_num()
    moved = torch.zeros_like(q)
    moved[..., 0] = (off * q.norm(dim=-1)).square() * row
    _, _, keys = reference.sparse_attention_backward(moved, q, k, k, out, lse, chosen, **twice)
    return scale * off * towards.norm(dim=-1), scale * keys[..., 0].clamp_min(0).sqrt(), None


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
