"""One needle against twelve facts: which of the two tells a good budget from a bad one."""

from __future__ import annotations

from typing import Any

from msa_suites.models.attention import MsaSettings
from msa_suites.reproduction.budget import main_workload
from msa_suites.reproduction.points import Workload, curve
from msa_suites.reproduction.setup import Setup

BUDGETS = (2, 3, 4, 8, 16)


def measure(setup: Setup) -> dict[str, Any]:
    """Recall of both at every budget, by the scorer max and by chance."""
    budgets = BUDGETS[0:3:2] if setup.quick else BUDGETS
    points = [("max", MsaSettings(topk=k)) for k in budgets]
    points += [("random", MsaSettings(scorer="random", topk=k)) for k in budgets[-1:]]
    single = Workload(2048, contexts=2 if setup.quick else 16, single=True)
    return {
        "single": curve(setup, single, points),
        "twelve": curve(setup, main_workload(setup), points),
    }
