"""Checks of attention over a given selection: packed, merged from parts, paged."""

from __future__ import annotations

import torch
from torch import Tensor

from msa_suites.correctness.diagnosis import Evidence
from msa_suites.correctness.material import Material
from msa_suites.correctness.passrule import compare
from msa_suites.correctness.subject import Arguments, Skipped
from msa_suites.correctness.trial import Trial
from msa_suites.hostile import poison_unread
from msa_suites.inputs import Inputs
from msa_suites.session import WITHHELD


def attention(t: Trial) -> None:
    """Output of attention over a given selection."""
    out, _ = t.plain("sparse_attention")
    compare_given(t, out, None, t.material.selection)


def attention_lse(t: Trial) -> None:
    """Natural log-sum-exp of the same."""
    _, lse = t.plain("sparse_attention")
    if lse is None:
        raise Skipped(f"{WITHHELD}it returns no LSE")
    compare_lse(t, lse, t.material.truth[1], t.material.eager[1])


def attention_permuted(t: Trial) -> None:
    """The order of a selection's entries changes nothing."""
    _attend_given(t, permuted(t.material.selection, t.case.seed))


def permuted(selection: Tensor, seed: int) -> Tensor:
    """The same sets in another order, the empty entries last as the contract has them."""
    order = torch.randperm(selection.shape[-1], generator=torch.Generator().manual_seed(seed))
    mixed = selection[..., order]
    packed = torch.argsort((mixed < 0).to(torch.int8), dim=-1, stable=True)
    return mixed.gather(-1, packed)


def attention_empty_rows(t: Trial) -> None:
    """Rows without any block give 0 and -inf, beside rows that have some."""
    chosen = t.material.selection.clone()
    chosen[::3] = -1
    chosen[1::5, -1] = -1
    _attend_given(t, chosen)


def attention_everything(t: Trial) -> None:
    """A selection of every visible block is causal attention, exactly defined without MSA."""
    m, chosen = t.material, t.material.everything
    t.subject.require("sparse_attention", t.case, topk=chosen.shape[-1])
    out, _ = t.run("sparse_attention", t.arguments("sparse_attention", selection=chosen))
    assert out is not None
    eager = m.eager_of(chosen)[0]
    wrong = compare(out, m.dense, eager=eager, dtype=t.case.torch_dtype)
    if wrong is not None:
        t.fail("output", wrong)


def attention_large(t: Trial) -> None:
    """Logits whose exponential overflows or vanishes unless the maximum is taken off."""
    m = t.material.variant("large")
    out, lse = t.run("sparse_attention", t.arguments("sparse_attention", material=m))
    compare_given(t, out, lse, m.selection, m)


def attention_unread_nan(t: Trial) -> None:
    """NaN in every slot that no row reads does not reach the output."""
    chosen = t.material.selection.clone()
    # One group keeps a single block per row, so that more stays unread than in the others.
    chosen[:, 0, 1:] = -1
    _attend_given(t, chosen, poison_unread(t.material.inputs, chosen, t.case.block))


def _attend_given(t: Trial, chosen: Tensor, inputs: Inputs | None = None) -> None:
    out, lse = t.run("sparse_attention", t.arguments("sparse_attention", inputs, selection=chosen))
    compare_given(t, out, lse, chosen)


def compare_given(
    t: Trial,
    out: Tensor | None,
    lse: Tensor | None,
    chosen: Tensor,
    material: Material | None = None,
    *,
    paged: Arguments | None = None,
) -> None:
    """Judge out and LSE of attention over a given selection; ``paged`` where a cache was read."""
    m = material or t.material
    plain = chosen is m.selection
    truth = m.truth if plain else m.truth_of(chosen)
    eager = m.eager if plain else m.eager_of(chosen)
    if out is not None:
        wrong = compare(out, truth[0], eager=eager[0], dtype=t.case.torch_dtype)
        if wrong is not None:
            where = torch.arange(len(out))
            read = None if paged is None else ("sparse_decode", paged)
            t.fail("output", wrong, Evidence(m, where, out=out, given=chosen, paged=read))
    if lse is not None:
        compare_lse(t, lse, truth[1], eager[1])


def compare_lse(t: Trial, lse: Tensor, truth: Tensor, eager: Tensor) -> None:
    wrong = compare(lse, truth, eager=eager, dtype=t.case.torch_dtype)
    if wrong is not None:
        t.fail("lse", wrong)


def combine(t: Trial) -> None:
    """Partial outputs over disjoint blocks merge into the whole; a part that is empty holds NaN."""
    for parts in (3, 1):
        _combine(t, parts)


def _combine(t: Trial, count: int) -> None:
    m = t.material
    chosen = m.selection.clone()
    chosen[::4] = -1  # rows that have no part at all
    parts = [m.truth_of(torch.where(chosen % count == part, chosen, -1)) for part in range(count)]
    outs = torch.stack([out.float() for out, _ in parts])
    lses = torch.stack([lse for _, lse in parts])
    # What nobody wrote: a kernel leaves an empty part as it found it.
    outs = outs.masked_fill((lses == -torch.inf)[..., None], torch.nan)
    got, got_lse = t.run("combine", ((outs, lses), {}))
    assert got is not None and got_lse is not None
    truth, truth_lse = m.truth_of(chosen)
    yardstick = truth.float(), truth_lse
    for what, x, right, eager in (
        ("output", got, truth, yardstick[0]),
        ("lse", got_lse, truth_lse, yardstick[1]),
    ):
        wrong = compare(x, right, eager=eager, dtype=torch.float32)
        if wrong is not None:
            t.fail(f"{what} of {count} parts", wrong)
