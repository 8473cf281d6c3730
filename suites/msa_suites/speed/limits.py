"""What arithmetic allows: the cost table at the shapes that the speed suite times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from msa.cost import CostShape, cost_rows
from msa_suites.speed.series import SpeedSeries


def cost_document(shape: CostShape, lengths: Iterable[int]) -> dict[str, Any]:
    """The JSON of ``msa-bench cost``: a row a length, the ceiling and the break-even length."""
    return {
        "shape": asdict(shape),
        "rows": [asdict(row) for row in cost_rows(shape, list(lengths))],
        "ceiling": shape.ceiling,
        "break_even": shape.break_even,
    }


def speed_limits(series: Iterable[SpeedSeries]) -> dict[str, Any] | None:
    """The cost table of the prefills among ``series``; None unless all have one shape.

    Args:
        series: as they are timed; anything but single-sequence prefill is left out.
    """
    attends = [one.case for one in series if one.operation == "attend"]
    cases = [case for case in attends if case.q_lens == case.k_lens and len(case.q_lens) == 1]
    shapes = {(c.Hq, c.Hkv, c.D, c.Di, c.block, c.topk) for c in cases}
    if len(shapes) != 1:
        return None
    q_heads, kv_heads, dim, index_dim, block, topk = shapes.pop()
    size = max(torch.empty(0, dtype=c.torch_dtype).element_size() for c in cases)
    shape = CostShape(q_heads, kv_heads, dim, index_dim, block, topk, size, size)
    return cost_document(shape, sorted({c.k_lens[0] for c in cases}))
