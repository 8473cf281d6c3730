"""Checks of the whole: what must hold of ``attend``, whatever it is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from msa.packing import segments
from msa_suites.correctness.margins import Geometry, judge_selection
from msa_suites.correctness.passrule import compare
from msa_suites.correctness.subject import Skipped
from msa_suites.correctness.trial import Trial
from msa_suites.hostile import altered


def pipeline(t: Trial) -> None:
    """Output, and selection where one is returned."""
    out, selection = t.plain("attend")
    assert out is not None
    t.judge_attended(out, selection)


def keep_everything(t: Trial) -> None:
    """With room for every block, MSA is causal attention."""
    m = t.material
    topk = max(m.scores.shape[-1], t.case.topk)
    t.subject.require("attend", t.case, topk=topk)
    out, selection = t.attend(m.inputs, topk=topk)
    wrong = compare(out, m.dense, eager=m.eager_of(m.everything)[0], dtype=t.case.torch_dtype)
    if wrong is not None:
        t.fail("output", wrong)
    if selection is not None:
        geometry = Geometry.of(t.case, m.inputs, topk=topk)
        wrong = judge_selection(selection, m.scores, geometry, m.tolerance)
        if wrong is not None:
            t.fail("selection", wrong)


def below_budget(t: Trial) -> None:
    """Rows whose context fits into the budget are causal attention."""
    m, budget = t.material, t.case.budget_tokens
    position = torch.cat([s.positions() for s in segments(m.inputs.cu_q, m.inputs.cu_k)])
    rows = (position < budget)[:, None].expand(-1, t.case.Hq)
    if not bool(rows.any()):
        raise Skipped(f"no query stands below the budget of {budget} tokens")
    out, _ = t.plain("attend")
    assert out is not None
    wrong = compare(out, m.dense, eager=m.eager[0], dtype=t.case.torch_dtype, rows=rows)
    if wrong is not None:
        t.fail("output", wrong)


def batch_equals_singles(t: Trial) -> None:
    """Every sequence of a batch, called alone, gives its part of the batch."""
    sequences = [s for s in segments(*_lengths(t)) if s.q_len]
    if len(sequences) < 2:
        raise Skipped("it has one sequence")
    for s in sequences:
        _judge_part(t, [(s.q_start, s.q_stop, s.k_start, s.k_stop)])


def chunked_prefill(t: Trial) -> None:
    """Queries in chunks, each with the keys so far: the whole. Chunks start inside blocks."""
    for s in segments(*_lengths(t)):
        cut = s.q_len // 2 + (s.first_position + s.q_len // 2) % t.case.block // 2 + 1
        if not 0 < cut < s.q_len:
            continue
        for a, b in ((0, cut), (cut, s.q_len)):
            keys = s.k_start + s.first_position + b
            _judge_part(t, [(s.q_start + a, s.q_start + b, s.k_start, keys)])


def decode_equals_row(t: Trial) -> None:
    """The newest query alone, with all keys: the last row of the prefill."""
    parts = [
        (s.q_stop - 1, s.q_stop, s.k_start, s.k_stop) for s in segments(*_lengths(t)) if s.q_len
    ]
    _judge_part(t, parts)


def future_changes_nothing(t: Trial) -> None:
    """Other keys, values and index keys after a position leave the rows before it alone."""
    x = t.material.inputs
    later = torch.zeros(len(x.k), dtype=torch.bool)
    rows = []
    for s in segments(x.cu_q, x.cu_k):
        if s.q_len < 2:
            continue
        # Inside a block, so that its visible part and its future are both in play.
        cut = s.first_position + s.q_len // 2
        cut = min(cut - cut % t.case.block + t.case.block // 2, s.k_len - 1)
        later[s.k_start + cut + 1 : s.k_stop] = True
        rows.append(torch.arange(s.q_start, s.q_start + max(0, cut + 1 - s.first_position)))
    if not rows:
        raise Skipped("every sequence has one query: none has a future")
    out, selection = t.attend(altered(x, {"k": later, "v": later, "k_idx": later}, -3.0))
    where = torch.cat(rows)
    picked = None if selection is None else selection[where]
    t.judge_attended(out[where], picked, rows=where)


def groups_independent(t: Trial) -> None:
    """Other queries, keys and values of the other groups leave a group alone."""
    case, x = t.case, t.material.inputs
    if case.Hkv < 2:
        raise Skipped("it has one group")
    kept = case.Hkv - 1
    other = torch.arange(case.Hkv) != kept
    heads = other.repeat_interleave(case.group_size)
    parts = {"q": heads, "k": other, "v": other, "q_idx": other}
    where = {name: (slice(None), mask) for name, mask in parts.items()}
    out, selection = t.attend(altered(x, where, -2.0))
    groups = (~other).expand(len(x.q), -1)
    t.judge_attended(out, selection, groups=groups)


def ties(t: Trial) -> None:
    """Mass ties: the choice among equal blocks is free, the output follows from it."""
    _variant(t, "ties")


def lowest_local(t: Trial) -> None:
    """The local block is kept though it scores lowest."""
    _variant(t, "lowest_local")


def negative(t: Trial) -> None:
    """All scores negative: no zero of padding or of an empty slot may outrank them."""
    _variant(t, "negative")


def large(t: Trial) -> None:
    """Logits whose exponential overflows or vanishes unless the maximum is taken off."""
    _variant(t, "large")


def _variant(t: Trial, name: str) -> None:
    m = t.material.variant(name)
    out, selection = t.attend(m.inputs)
    if selection is None and not bool(m.clear.any()):
        raise Skipped("it returns no selection, and no row has a clear margin")
    t.judge_attended(out, selection, material=m)


def _lengths(t: Trial) -> tuple[Tensor, Tensor]:
    return t.material.inputs.cu_q, t.material.inputs.cu_k


def _judge_part(t: Trial, parts: list[tuple[int, int, int, int]]) -> None:
    inputs, where = t.material.part(parts)
    out, selection = t.attend(inputs)
    t.judge_attended(out, selection, rows=where)
