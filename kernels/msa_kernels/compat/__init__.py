"""MiniMax's kernel interface on any device: ``from msa_kernels import compat as fmha_sm100``.

The calls and the layouts of the package ``fmha_sm100`` (github.com/MiniMax-AI/MSA, README,
python/fmha_sm100/api.py and cute/interface.py), computed with :mod:`msa.fast`, in both of its
forms: plan, run for the maxima of blocks, select, plan, run over the selected blocks; and the
selection turned round into lists of queries, with attention over those. Code that is written for
the package runs where there is no SM100, to be tried and tested.

It is wider than the package where that costs nothing: any head dim, budget, page size and, for
lists, block. What it leaves out it refuses by name: attention by a plan that is not causal, offsets
of queries of one's own, and a plan's page table as a matrix. A block that a query cannot see is
never selected.
"""

from __future__ import annotations

from msa_kernels.compat.attending import sparse_atten_func
from msa_kernels.compat.lists import Schedule, build_k2q_csr
from msa_kernels.compat.planning import Plan, fmha_sm100_plan
from msa_kernels.compat.running import fmha_sm100
from msa_kernels.compat.selecting import sparse_topk_select

__all__ = [
    "Plan",
    "Schedule",
    "build_k2q_csr",
    "fmha_sm100",
    "fmha_sm100_plan",
    "sparse_atten_func",
    "sparse_topk_select",
]
