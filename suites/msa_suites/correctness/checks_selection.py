"""Checks of block scores and of the selection from given scores."""

from __future__ import annotations

import torch
from torch import Tensor

from msa import reference
from msa_suites.correctness.diagnosis import Evidence
from msa_suites.correctness.margins import as_mask, judge_selection
from msa_suites.correctness.material import Material
from msa_suites.correctness.passrule import Mismatch
from msa_suites.correctness.subject import Arguments, Skipped
from msa_suites.correctness.trial import Trial

LOWER_FIRST = "lower block first"


def scores(t: Trial) -> None:
    """Block scores: -inf exactly where nothing is visible, the rest to rounding."""
    (got,) = t.plain("block_scores")
    assert got is not None
    judge_scores(t, got, t.material)


def scores_own_keys(t: Trial) -> None:
    """The same with an index key of its own for every group."""
    m = t.material.variant("own_keys")
    (got,) = t.run("block_scores", t.arguments("block_scores", material=m))
    assert got is not None
    judge_scores(t, got, m)


def judge_scores(t: Trial, got: Tensor, m: Material, paged: Arguments | None = None) -> None:
    """Judge scores ``[Tq, Hkv, NB]``; ``paged``: the arguments, where a cache was read."""
    truth = m.scores
    read = None if paged is None else ("paged_block_scores", paged)
    evidence = Evidence(m, torch.arange(len(got)), scores=got, paged=read)
    hidden = got.isneginf() != truth.isneginf()
    if bool((hidden | got.isnan()).any()):
        first = tuple(int(i) for i in (hidden | got.isnan()).nonzero()[0])
        what = f"got {got[first].item()} where {truth[first].item():.6g} is right"
        rows = (hidden | got.isnan()).any(-1)
        t.fail("scores", Mismatch(what, first, float(rows.float().mean()), rows), evidence)
    error = torch.where(truth.isfinite(), got.double() - truth.double(), 0.0).abs()
    wrong = (error > m.tolerance[..., None]) & truth.isfinite()
    if bool(wrong.any()):
        first = tuple(int(i) for i in wrong.nonzero()[0])
        what = (
            f"maximum error {float(error.max()):.3g} (bound {float(m.tolerance[first[:2]]):.3g}), "
            f"got {got[first].item():.6g} where {truth[first].item():.6g} is right"
        )
        rows = wrong.any(-1)
        t.fail("scores", Mismatch(what, first, float(rows.float().mean()), rows), evidence)


def selection(t: Trial) -> None:
    """Selection from given scores: valid, and the best blocks."""
    (got,) = t.plain("select_blocks")
    assert got is not None
    _judge(t, got, t.material.scores)


def selection_nan(t: Trial) -> None:
    """NaN scores rank last: they displace nothing, and visible blocks still fill the slots."""
    if not t.subject.capabilities.nan_scores:
        raise Skipped("nan_scores: its capabilities exclude NaN scores")
    given = t.material.scores.clone()
    given[:, :, 1::3] = torch.nan
    given[1::7] = torch.nan
    _select(t, given)


def selection_ties(t: Trial) -> None:
    """Mass ties: any of equal blocks may be kept (the lower one if that is declared)."""
    truth = t.material.scores
    for given in (torch.zeros_like(truth), (truth * 2).round()):
        _select(t, torch.where(truth.isneginf(), -torch.inf, given))


def selection_lowest_local(t: Trial) -> None:
    """The local block is kept though its score is the lowest."""
    _select(t, t.material.variant("lowest_local").scores)


def selection_negative(t: Trial) -> None:
    """All scores negative: an empty slot of zero may not outrank them."""
    _select(t, t.material.variant("negative").scores)


def _select(t: Trial, given: Tensor) -> None:
    _, keywords = t.arguments("select_blocks")
    (got,) = t.run("select_blocks", ((given,), keywords))
    assert got is not None
    _judge(t, got, given)
    if t.subject.capabilities.tie_rule == LOWER_FIRST:
        right = reference.select_blocks(given, **t.material.lengths, **t.case.settings)
        columns = given.shape[-1]
        wrong = (as_mask(got, columns) != as_mask(right, columns)).any(-1)
        if bool(wrong.any()):
            row, group = (int(i) for i in wrong.nonzero()[0])
            what = (
                f"declared tie rule {LOWER_FIRST!r} broken: got {got[row, group].tolist()}, "
                f"wanted {right[row, group].tolist()}"
            )
            mismatch = Mismatch(what, (row, group), float(wrong.float().mean()), wrong)
            t.fail("selection", mismatch, cause="ties are broken in another way than declared")


def _judge(t: Trial, got: Tensor, given: Tensor) -> None:
    m = t.material
    # Given scores leave nothing to round, unless the owner ranks them in lower precision.
    tolerance = torch.zeros_like(m.tolerance) if m.exact else m.tolerance
    wrong = judge_selection(got, given, m.geometry, tolerance)
    if wrong is not None:
        evidence = Evidence(m, torch.arange(len(got)), selection=got) if given is m.scores else None
        t.fail("selection", wrong, evidence)
