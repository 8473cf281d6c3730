"""The interpreter prepares Triton's language once a launch, whatever the kernel calls."""

from __future__ import annotations

import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from msa_kernels import triton_ops


def _prepared(monkeypatch: pytest.MonkeyPatch, rows: int) -> int:
    """How often a module or class was prepared while kernels chose blocks of ``rows`` queries."""
    calls: list[object] = []
    prepare = interpreter._patch_builtin

    def noted(module: object, *rest: object) -> None:
        calls.append(module)
        prepare(module, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(interpreter, "_patch_builtin", noted)
        cu = torch.tensor([0, rows], dtype=torch.int32)
        keys = torch.tensor([0, 128], dtype=torch.int32)
        scores = torch.arange(8.0).repeat(rows, 1, 1)
        chosen = triton_ops.select_blocks(scores, cu_q=cu, cu_k=keys, block=16, topk=4)
    assert sorted(chosen[-1, 0].tolist()) == [4, 5, 6, 7]
    return len(calls)


def test_more_rows_prepare_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tl.load, tl.max, tl.tensor.to, tl.range
    few = _prepared(monkeypatch, 1)
    assert (tl.load, tl.max, tl.tensor.to, tl.range) == outside, "a launch leaves nothing behind"
    assert 0 < _prepared(monkeypatch, 100) <= few
