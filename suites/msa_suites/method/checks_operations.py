"""The operations beyond the conformance cases: the specification itself, float64, odd scales.

``msa.reference`` is what people read, so it must be what is computed. An implementation from
outside need not know float64 or scales of zero and below; the fast path takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msa import reference
from msa_harness.client import Worker
from msa_kernels.contract import OPERATIONS, Capabilities
from msa_suites.case import Case
from msa_suites.cases import case_named
from msa_suites.correctness.run import FAILED, iterate_checks, plan
from msa_suites.hostile import page_cache
from msa_suites.inputs import Inputs, make_inputs
from msa_suites.method.checks import first

#: Chunks inside a block, forced blocks, one block of budget, decoding.
_CASES = ("chunk-inside-block", "sink-2-local-2", "topk-1", "decode")
_HANDLE = "specification"
#: Chunks of several sequences, and one with rows that see no more blocks than they select.
_CORNERS = (
    case_named("chunk-inside-block"),
    case_named("group-of-3"),
    # From the last token but one of a block: its first query sees all of the block but one token.
    replace(case_named("group-of-3"), name="chunk-before-border", q_lens=(40,), k_lens=(150,)),
)
#: Relative error of a row in float64 and float32: far above rounding, far below another dtype's.
_EXACT, _SINGLE = 1e-12, 1e-5
_SCALES = (0.0, -0.2)
_DECIDED = 0.95


def check_reference(worker: Worker) -> str:
    """The conformance checks on the subject's ``msa.reference``, on a few small cases."""
    worker.load(_HANDLE, "msa.reference")

    def call(operation: str, /, *tensors: Tensor, **keywords: object) -> object:
        return worker.call(_HANDLE, operation, tensors, keywords)

    # Held to what this judge's own offers: an operation that is gone would be a skipped check.
    offered = Capabilities.parse(
        reference.CAPABILITIES, [name for name in OPERATIONS if hasattr(reference, name)]
    )
    table = plan(cases=[case_named(name) for name in _CASES])
    for result in iterate_checks(call, offered, table=table):
        if result.status == FAILED:
            return f"{result.check} on {result.case}: {result.detail}"
    return ""


def check_corners(worker: Worker) -> str:
    """The fast path in float64, where float32 would show, on strided channels, with odd scales."""
    worker.load(_HANDLE, "msa.fast")

    def problems() -> Iterator[str]:
        for case in _CORNERS:
            inputs = make_inputs(case)
            yield _apart(worker, case, "float64", inputs.double(), _EXACT)
            yield _apart(worker, case, "strided channels", _strided(inputs), _SINGLE)
            yield _apart(worker, case, "channels before tokens", _channels_first(inputs), _SINGLE)
            for scale in _SCALES:
                yield _apart(worker, case, f"scale {scale}", inputs, _SINGLE, scale=scale)
        yield _decoded_apart(worker)
        yield _runs_apart(worker)

    return first(problems())


def _strided(inputs: Inputs) -> Inputs:
    """The same values, every second channel of wider tensors."""
    q, k, v = (x.repeat_interleave(2, -1)[..., ::2] for x in (inputs.q, inputs.k, inputs.v))
    return replace(inputs, q=q, k=k, v=v)


def _channels_first(inputs: Inputs) -> Inputs:
    """The same values, stored ``[H, D, T]``: neighbours in memory are tokens."""
    q, k, v = (
        x.permute(1, 2, 0).contiguous().permute(2, 0, 1) for x in (inputs.q, inputs.k, inputs.v)
    )
    return replace(inputs, q=q, k=k, v=v)


def _apart(
    worker: Worker, case: Case, what: str, inputs: Inputs, bound: float, **changed: float
) -> str:
    """How far ``attend`` is off, or nothing."""
    scales = {"scale": case.scale, "index_scale": case.index_scale, **changed}
    settings: dict[str, Any] = {**case.settings, **scales}
    lengths: dict[str, Any] = {"cu_q": inputs.cu_q, "cu_k": inputs.cu_k}
    out, selection = worker.call(_HANDLE, "attend", inputs.tensors, {**lengths, **settings})
    wanted, chosen = reference.attend(
        *inputs.double().tensors, cu_q=inputs.cu_q, cu_k=inputs.cu_k, **settings
    )
    if (out.shape, selection.shape) != (wanted.shape, chosen.shape):
        return f"{case.name} with {what}: got {list(out.shape)} and {list(selection.shape)}"
    alike = (selection == chosen).all(-1)  # a near tie of float32 may fall the other way
    if float(alike.float().mean()) < _DECIDED:
        return f"{case.name} with {what}: selection of {int((~alike).sum())} rows"
    return _error(f"{case.name} with {what}", out[alike.all(1)], wanted[alike.all(1)], bound)


def _decoded_apart(worker: Worker) -> str:
    """How far ``sparse_decode`` is off in float64.

    Asked for a block that no page holds, and for one block twice, in neighbouring slots.
    """
    case = case_named("decode")
    inputs = make_inputs(case).double()
    settings: dict[str, Any] = {**case.settings, "index_scale": case.index_scale}
    wanted, selection = reference.attend(
        *inputs.tensors, cu_q=inputs.cu_q, cu_k=inputs.cu_k, **settings, scale=case.scale
    )
    pages = page_cache(inputs, case.block, seed=case.seed)
    beyond = torch.full_like(selection[..., :1], 10_000)  # counts as empty, as it does in prefill
    selected = torch.cat([selection[..., :1], selection, beyond], -1)[:, None]
    given = [inputs.q[:, None], pages.k_pages, pages.v_pages, selected]
    table = {"page_table": pages.page_table, "k_lens": pages.k_lens, "scale": case.scale}
    out, _ = worker.call(_HANDLE, "sparse_decode", given, table)
    return _error("decode with float64", out[:, 0], wanted, _EXACT)


def _runs_apart(worker: Worker) -> str:
    """How far ``sparse_attention`` is off where runs of queries share blocks.

    A run of one block meets that of the next; another comes back to a block after a gap.
    """
    case = replace(case_named("group-of-3"), q_lens=(256,), k_lens=(512,), block=32)
    inputs = make_inputs(case)
    rows = torch.arange(256)
    meeting, returning, local = rows // 64, 4 + rows // 64 % 2, (256 + rows) // 32
    selection = torch.stack([meeting, returning, local], -1).int()
    selection = selection[:, None].expand(-1, case.Hkv, -1).contiguous()
    given: dict[str, Any] = {"cu_q": inputs.cu_q, "cu_k": inputs.cu_k}
    given |= {"block": case.block, "scale": case.scale}
    tensors = (inputs.q, inputs.k, inputs.v, selection)
    out, _ = worker.call(_HANDLE, "sparse_attention", tensors, given)
    x = inputs.double()
    wanted, _ = reference.sparse_attention(x.q, x.k, x.v, selection, **given)
    return _error("runs of queries", out, wanted, _SINGLE)


def _error(who: str, got: Tensor, want: Tensor, bound: float) -> str:
    if got.shape != want.shape:
        return f"{who}: wanted {list(want.shape)}, got {list(got.shape)}"
    apart = (got.double() - want.double()).flatten(1).norm(dim=1)
    error = float((apart / want.double().flatten(1).norm(dim=1)).nan_to_num(torch.inf).max())
    return "" if error <= bound else f"{who}: relative error of a row {error:.1e}"
