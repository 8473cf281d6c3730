"""Checks of the index branch's loss and its gradient over a given selection."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from msa import reference
from msa_suites.correctness.checks_backward import GRADIENT_TIMES
from msa_suites.correctness.eager import eager_index_kl
from msa_suites.correctness.material import Material
from msa_suites.correctness.passrule import compare
from msa_suites.correctness.subject import Arguments
from msa_suites.correctness.trial import Trial

#: Bounds where logits are large, in those of the forward.
_LARGE_TIMES = 12.0


def index_kl(t: Trial) -> None:
    """KL of the index branch to attention, and its gradients by index queries and keys."""
    _align(t, t.material, t.material.selection)


def index_kl_own_keys(t: Trial) -> None:
    """The same with an index key of its own for every group."""
    m = t.material.variant("own_keys")
    _align(t, m, m.selection)


def index_kl_empty_rows(t: Trial) -> None:
    """Rows without any block and slots that are left over add nothing, beside rows that do."""
    chosen = t.material.selection.clone()
    chosen[::3] = -1
    chosen[1::5, -1] = -1
    _align(t, t.material, chosen)


def index_kl_large(t: Trial) -> None:
    """Logits of both branches whose exponential overflows or vanishes without their maximum."""
    m = t.material.variant("large_index")
    # A logit of 98 is rounded by seven bits more, and student - teacher keeps all of that.
    _align(t, m, m.selection, times=_LARGE_TIMES)


def index_kl_arguments(t: Trial, m: Material, chosen: Tensor) -> Arguments:
    """Tensors and keywords of ``index_kl``."""
    x, case = m.inputs, t.case
    scales = {"scale": case.scale, "index_scale": case.index_scale}
    return (x.q_idx, x.k_idx, x.q, x.k, chosen), {**m.lengths, "block": case.block, **scales}


def _align(t: Trial, m: Material, chosen: Tensor, *, times: float = GRADIENT_TIMES) -> None:
    x, exact = m.inputs, m.exactly
    given, keywords = index_kl_arguments(t, m, chosen)
    got = t.run("index_kl", (given, keywords))
    settings: dict[str, Any] = dict(keywords)
    precise = (exact.q_idx, exact.k_idx, exact.q, exact.k, chosen)
    truth = reference.index_kl(*precise, **settings)
    eager = eager_index_kl(*given, **settings)
    # Sums instead of means: a row as large as it is without the others beside it.
    count = x.q_idx.shape[0] * x.q_idx.shape[1]
    names = ("loss", "dq_idx", "dk_idx")
    for name, mine, right, yardstick in zip(names, got, truth, eager, strict=True):
        assert mine is not None
        sums = count if name != "loss" else 1
        parts = (part.double().reshape(part.shape or (1, 1)) * sums for part in (mine, right))
        wrong = compare(
            *parts,
            eager=yardstick.double().reshape(right.shape or (1, 1)) * sums,
            dtype=x.q.dtype,
            times=times,
        )
        if wrong is not None:
            t.fail(name, wrong)
