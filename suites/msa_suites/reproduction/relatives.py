"""MSA and its relatives, each spending the same number of attended tokens."""

from __future__ import annotations

from typing import Any

from msa_suites.models.attention import MsaSettings
from msa_suites.quality.relatives import BUDGETS, RULES, rule_points
from msa_suites.reproduction.points import Workload, curve
from msa_suites.reproduction.setup import Setup

LENGTH = 2048
#: Contexts with twelve facts each, and texts for perplexity.
CONTEXTS = 8


def measure(setup: Setup) -> dict[str, Any]:
    """A row for every rule and budget, the dense one, and what each rule does and leaves out."""
    rules = [RULES[name] for name in (("msa", "moba") if setup.quick else RULES)]
    budgets = BUDGETS[:1] if setup.quick else BUDGETS
    contexts = 1 if setup.quick else CONTEXTS
    points = rule_points(rules, budgets, MsaSettings(seed=setup.seed))
    workload = Workload(LENGTH, contexts=contexts, texts=contexts)
    found = curve(setup, workload, [(name, one) for (name, _), one in points.items()])
    return {
        "length": LENGTH,
        "contexts": contexts,
        "dense": {**found["dense"], "tokens": 0},
        "rows": [
            {**row, "tokens": tokens}
            for (_, tokens), row in zip(points, found["rows"], strict=True)
        ],
        "rules": [
            {
                "name": rule.name,
                "pieces": rule.pieces,
                "source": rule.source,
                "faithful": rule.faithful,
                "stand_in": rule.stand_in,
            }
            for rule in rules
        ],
    }
