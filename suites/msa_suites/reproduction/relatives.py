"""MSA and its relatives, each spending the same number of attended tokens."""

from __future__ import annotations

from typing import Any

from msa_suites.models.attention import MsaSettings
from msa_suites.quality.relatives import BUDGETS, RULES, rule_points
from msa_suites.quality.sweep import SweepRow, measure_points
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
    rows = []
    measured = measure_points(
        setup.model, points, length=LENGTH, contexts=contexts, device=setup.device
    )
    for number, row in enumerate(measured, start=1):
        setup.say(f"relatives: {row.scorer}, {row.budget} tokens ({number}/{len(points) + 1})")
        rows.append(_plain(row))
    dense, *rest = rows
    return {
        "length": LENGTH,
        "contexts": contexts,
        "dense": dense,
        "rows": rest,
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


def _plain(row: SweepRow) -> dict[str, Any]:
    bounds = {"low": row.recall_low, "high": row.recall_high}
    return {
        "name": row.scorer,
        "tokens": row.budget,
        "recall": {"value": row.recall, **bounds, "n": row.n},
        "perplexity": row.perplexity,
        "change": row.perplexity_change,
    }
