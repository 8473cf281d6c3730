"""The same budget spent by different scorers: the pooling decides."""

from __future__ import annotations

from typing import Any

from msa_suites.models.attention import MsaSettings
from msa_suites.reproduction.budget import main_workload
from msa_suites.reproduction.points import curve
from msa_suites.reproduction.setup import Setup

SCORERS = ("max", "mean", "quest", "random", "recent", "oracle")
BUDGETS = (2, 3, 4, 8, 16)


def all_points(setup: Setup) -> list[tuple[str, MsaSettings]]:
    """Every scorer at every budget."""
    names = ("max", "random") if setup.quick else SCORERS
    budgets = BUDGETS[0:3:2] if setup.quick else BUDGETS
    return [(name, MsaSettings(scorer=name, topk=k)) for name in names for k in budgets]


def measure(setup: Setup) -> dict[str, Any]:
    """Recall and change of perplexity of all of them on the same items."""
    return curve(setup, main_workload(setup), all_points(setup))
