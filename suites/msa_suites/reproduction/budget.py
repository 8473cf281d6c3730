"""Perplexity and recall of twelve facts against the budget k, and what a forced sink takes."""

from __future__ import annotations

from typing import Any

from msa_suites.models.attention import MsaSettings
from msa_suites.reproduction.points import Workload, curve
from msa_suites.reproduction.setup import Setup

BUDGETS = (2, 3, 4, 8, 16, 32)
#: Without a forced sink the local block alone takes a slot.
WITHOUT_SINK = (2, 3, 4)


def main_workload(setup: Setup) -> Workload:
    """What the sections on recall ask at each point."""
    return Workload(2048, contexts=1, texts=2) if setup.quick else Workload(2048, 6, texts=12)


def measure(setup: Setup) -> dict[str, Any]:
    """Curves by length for the scorer max; one of them without the sink."""
    budgets = BUDGETS[0:3:2] if setup.quick else BUDGETS
    points = [("max", MsaSettings(topk=k)) for k in budgets]
    points += [
        ("max, no sink", MsaSettings(topk=k, sink_blocks=0))
        for k in (WITHOUT_SINK[:1] if setup.quick else WITHOUT_SINK)
    ]
    curves = [curve(setup, main_workload(setup), points)]
    if not setup.quick:
        curves.append(curve(setup, Workload(4096, contexts=3, texts=6), points[: len(budgets)]))
    return {"curves": curves}
