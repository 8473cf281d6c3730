"""Adapters on a machine that cannot run what they adapt: the conformance suite over a fake."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import torch

import msa_kernels
from msa_suites.case import Case
from msa_suites.correctness import Materials, iterate_checks, local_call, plan
from msa_suites.correctness.run import FAILED

#: What is right, for all tests of a process.
_MATERIALS = Materials(keep=True)


class Recorder:
    """Calls of a fake by name: positional arguments and keywords."""

    def __init__(self):
        self.calls = []

    def __call__(self, name, **arguments):
        self.calls.append((name, SimpleNamespace(**arguments)))

    def of(self, name):
        """Arguments of every call of a function."""
        return [arguments for called, arguments in self.calls if called == name]


def install(monkeypatch, name, **members):
    """A stand-in module of that name."""
    module = ModuleType(name)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def here(adapter):
    """An adapter as it would be on its own hardware, with the tensors on the CPU."""
    offered = {name: getattr(adapter, name) for name in msa_kernels.operations(adapter)}
    return SimpleNamespace(**offered, CAPABILITIES={**adapter.CAPABILITIES, "devices": ["cpu"]})


def results(adapter, cases):
    """Results of the conformance suite on cases of one's own, one by one."""
    subject = here(adapter)
    return iterate_checks(
        local_call(subject),
        msa_kernels.capabilities(subject),
        table=plan(cases=cases),
        materials=_MATERIALS,
    )


def failures(adapter, cases):
    """Details of the checks that failed."""
    return [r.detail for r in results(adapter, cases) if r.status == FAILED]


def first_failure(adapter, cases):
    """Detail of the first check that fails; empty where none does."""
    return next((r.detail for r in results(adapter, cases) if r.status == FAILED), "")


def case(name, q_lens, k_lens, heads=(4, 2), **more):
    """A case in what MiniMax's kernels are built for: bfloat16, width 128, blocks of 128, k 16."""
    settings = {"dtype": "bfloat16", "topk": 16, "local_blocks": 1, "sink_blocks": 0, **more}
    return Case(
        name=name,
        q_lens=tuple(q_lens),
        k_lens=tuple(k_lens),
        Hq=heads[0],
        Hkv=heads[1],
        D=128,
        Di=128,
        block=128,
        seed=3,
        **settings,
    )


def dense_parts(q, k, v, kept, scale):
    """Out and natural LSE of rows over kept tokens, one row and head at a time.

    Args:
        q: ``[n, Hq, D]``.
        k: ``[S, Hkv, D]``.
        v: like ``k``.
        kept: function (row, group) -> bool ``[S]``.
        scale: factor on the logits.
    """
    heads = q.shape[1] // k.shape[1]
    out = torch.zeros(q.shape, dtype=torch.float64)
    lse = torch.full(q.shape[:2], -torch.inf, dtype=torch.float64)
    for g in range(k.shape[1]):
        mask = torch.stack([kept(t, g) for t in range(len(q))]) if len(q) else None
        for h in range(g * heads, (g + 1) * heads):
            logits = q[:, h].double() @ k[:, g].double().T * scale
            logits = torch.where(mask, logits, -torch.inf)
            lse[:, h] = logits.logsumexp(-1)
            weight = torch.where(mask, (logits - lse[:, h, None]).exp(), 0.0).nan_to_num()
            out[:, h] = weight @ torch.where(mask.any(0)[:, None], v[:, g].double(), 0.0)
    return out, lse.float()
