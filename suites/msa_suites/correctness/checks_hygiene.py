"""Checks of manners, on every operation that the subject has: repeatable, harmless, honest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from msa_suites.correctness import checks_paged
from msa_suites.correctness.checks_backward import backward_arguments
from msa_suites.correctness.checks_index_kl import index_kl_arguments
from msa_suites.correctness.margins import as_mask
from msa_suites.correctness.material import Material
from msa_suites.correctness.passrule import compare
from msa_suites.correctness.subject import Arguments, Failed, Skipped, same
from msa_suites.correctness.trial import Trial
from msa_suites.hostile import with_gaps

#: With the arguments of a packed forward, and judged against what is right in every check.
_FORWARD = ("block_scores", "select_blocks", "sparse_attention", "attend")
#: Those that take a scale, and their queries: place among the tensors, and name.
_QUERIES = {
    "block_scores": {0: "q_idx"},
    "sparse_attention": {0: "q"},
    "attend": {0: "q", 3: "q_idx"},
    "sparse_decode": {0: "q"},
    "paged_block_scores": {0: "q_idx"},
    "attend_paged": {0: "q", 1: "q_idx"},
}
#: Held against their own plain result here, and against what is right in their own checks.
_OTHERS = (*checks_paged.OPERATIONS, "combine", "sparse_attention_backward", "index_kl")


def _calls(
    t: Trial, among: tuple[str, ...] = (*_FORWARD, *_OTHERS)
) -> Iterator[tuple[str, Arguments]]:
    """Every operation ``among`` these that can run the case, with its arguments.

    Raises:
        Skipped: none can.
    """
    reasons, found = [], False
    for operation in among:
        if reason := t.subject.why_not(operation, t.case):
            reasons.append(reason)
            continue
        if operation in checks_paged.OPERATIONS and not t.case.decode_queries:
            continue
        found = True
        yield operation, _arguments(t, operation)
    if not found:
        raise Skipped("; ".join(reasons))


def _arguments(t: Trial, operation: str) -> Arguments:
    m = t.material
    if operation in checks_paged.OPERATIONS:
        return checks_paged.paged_arguments(t, operation)
    if operation == "sparse_attention_backward":
        return backward_arguments(t, m.selection)
    if operation == "index_kl":
        return index_kl_arguments(t, m, m.selection)
    if operation == "combine":
        out, lse = m.eager
        return (torch.stack([out.float(), out.float()]), torch.stack([lse, lse - 1])), {}
    return t.arguments(operation)


def deterministic(t: Trial) -> None:
    """Three calls give the same bits."""
    for operation, arguments in _calls(t):
        first = _copies(t.run(operation, arguments))
        for repeat in (2, 3):
            again = t.run(operation, arguments)
            for i, (a, b) in enumerate(zip(first, again, strict=True)):
                if not same(a, b):
                    raise Failed(
                        f"{operation}: call {repeat} gives other bits in result {i}", judged=True
                    )


def inputs_unchanged(t: Trial) -> None:
    """No input is written to: every call sees to that, here on every operation."""
    for operation, arguments in _calls(t):
        t.run(operation, arguments)


def fresh_outputs(t: Trial) -> None:
    """Other inputs give their own result, also in the same memory; earlier results stay."""
    other = t.material.variant("other")
    for operation, arguments in _calls(t, _FORWARD):
        tensors, keywords = arguments
        factors = {
            x: y.clone()
            for x, y in keywords.items()
            if x.endswith("_descale") and isinstance(y, Tensor)
        }
        moving = tuple(x.clone() for x in tensors), {**keywords, **factors}
        first = t.run(operation, moving)
        before = _copies(first)
        theirs = t.arguments(operation, material=other)
        for x, y in zip(moving[0], theirs[0], strict=True):
            x.copy_(y)
        for name, x in factors.items():
            x.copy_(cast(Tensor, theirs[1][name]))
        second = t.run(operation, moving)
        kept = t.retained(operation, arguments, theirs) or first
        for i, (a, b) in enumerate(zip(before, kept, strict=True)):
            if not same(a, b):
                raise Failed(
                    f"{operation}: a later call overwrote result {i} of an earlier one", judged=True
                )
        _judge(t, operation, second, other)


def scales(t: Trial) -> None:
    """The scale that is given is used: half the queries at twice the scale change nothing."""
    for operation, (tensors, keywords) in _calls(t, tuple(_QUERIES)):
        doubled: dict[str, object] = {
            name: 2 * value
            for name, value in keywords.items()
            if name in ("scale", "index_scale") and isinstance(value, float)
        }
        halved = list(tensors)
        for i, name in _QUERIES[operation].items():
            factor = keywords.get(f"{name}_descale")
            if isinstance(factor, Tensor):  # bytes have no halves
                doubled[f"{name}_descale"] = factor / 2
            else:
                halved[i] = tensors[i] / 2
        result = t.run(operation, (tuple(halved), {**keywords, **doubled}))
        if operation in _OTHERS:
            _alike(t, operation, (tensors, keywords), result)
        else:
            _judge(t, operation, result, t.material)


def gaps(t: Trial) -> None:
    """Views with gaps between rows, heads outermost in memory, give the same values."""
    for operation, (tensors, keywords) in _calls(t):
        views = tuple(with_gaps(x) for x in tensors)
        table = keywords.get("page_table")
        gapped = {"page_table": with_gaps(table)} if isinstance(table, Tensor) else {}
        for name, x in keywords.items():
            if name.endswith("_descale") and isinstance(x, Tensor) and x.ndim > 1:
                gapped[name] = with_gaps(x)
        result = t.run(operation, (views, {**keywords, **gapped}))
        if operation in _OTHERS:
            _alike(t, operation, (tensors, keywords), result)
            continue
        _judge(t, operation, result, t.material)


def _judge(t: Trial, operation: str, result: list[Tensor | None], m: Material) -> None:
    first = result[0]
    assert first is not None
    if operation == "attend":
        t.judge_attended(first, result[1], material=m)
    elif operation == "sparse_attention":
        wrong = compare(first, m.truth[0], eager=m.eager[0], dtype=t.case.torch_dtype)
        if wrong is not None:
            t.fail(operation, wrong)
    elif operation == "select_blocks":
        columns = m.scores.shape[-1]
        wrong_rows = (as_mask(first, columns) != as_mask(m.selection, columns)).any(-1) & m.clear
        if bool(wrong_rows.any()):
            raise Failed(
                f"select_blocks: {float(wrong_rows.float().mean()):.1%} of rows wrong", judged=True
            )
    else:
        error = torch.where(m.scores.isfinite(), first.double() - m.scores.double(), 0.0).abs()
        if bool((error > m.tolerance[..., None]).any()) or bool(first.isnan().any()):
            raise Failed(f"block_scores: maximum error {float(error.max()):.3g}", judged=True)


def _alike(t: Trial, operation: str, arguments: Arguments, result: list[Tensor | None]) -> None:
    """Hold a result against that of plain arguments."""
    for a, b in zip(t.run(operation, arguments), result, strict=True):
        if a is not None and b is not None:
            _close(t, operation, a, b)


def _close(t: Trial, operation: str, a: Tensor, b: Tensor) -> None:
    if not a.is_floating_point():
        if not same(a, b):
            raise Failed(f"{operation}: another selection", judged=True)
        return
    a, b = (x.reshape(-1, *(x.shape[-2:] if x.ndim > 1 else (1, 1))) for x in (a, b))
    wrong = compare(b, a.double(), eager=a, dtype=t.case.torch_dtype)
    if wrong is not None:
        t.fail(operation, wrong)


def _copies(result: list[Tensor | None]) -> list[Tensor | None]:
    return [None if x is None else x.clone() for x in result]
