"""Perplexity against recall over good and broken selectors: what perplexity alone lets through."""

from __future__ import annotations

from typing import Any

from msa_suites.models.attention import MsaSettings
from msa_suites.reproduction.budget import main_workload
from msa_suites.reproduction.points import curve
from msa_suites.reproduction.scorers import all_points
from msa_suites.reproduction.setup import Setup

#: Chance with a dense first layer: most of what text needs is local, and the layer sees the rest.
_HALF_BROKEN = "random, layer 0 dense"


def measure(setup: Setup) -> dict[str, Any]:
    """The points of the scorers, and broken selectors beside a layer that is whole."""
    points = all_points(setup)
    points += [
        (_HALF_BROKEN, MsaSettings(scorer="random", topk=k, dense_layers=(0,)))
        for k in ((4,) if setup.quick else (4, 8, 16))
    ]
    return curve(setup, main_workload(setup), points)
