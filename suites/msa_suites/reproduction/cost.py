"""Equation 12 over length: its ceiling, its break-even, and which index dim the paper has."""

from __future__ import annotations

from typing import Any

from msa.cost import CostShape
from msa_suites.reproduction.setup import Setup

#: Powers of two, and the round million.
LENGTHS = (*(4096 << i for i in range(9)), 1_000_000)
#: Index dims that would be round numbers; the paper prints none.
INDEX_DIMS = (128, 64)
#: Heads of the model into which the retrofit report put MSA, and its lengths.
RETROFIT, RETROFIT_LENGTHS = CostShape(q_heads=16, kv_heads=2), (2048, 8192, 32768)


def measure(setup: Setup) -> dict[str, Any]:
    """The tables of ``msa-bench cost``; exact, so without intervals."""
    from msa_suites.speed.limits import cost_document

    del setup
    lengths = sorted(LENGTHS)
    return {
        "index_dims": [
            {"index_dim": dim, **cost_document(CostShape(index_dim=dim), lengths)}
            for dim in INDEX_DIMS
        ],
        "one_byte_index": cost_document(CostShape(index_element_bytes=1), lengths),
        "retrofit": cost_document(RETROFIT, RETROFIT_LENGTHS),
    }
