"""What arithmetic and the machine allow, at the shapes that the speed suite times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import torch

from msa.cost import CostShape, attended_tokens, cost_rows, exact_flops, prefill_bytes
from msa_suites.case import Case
from msa_suites.speed.peaks import machine_peaks
from msa_suites.speed.series import SpeedSeries


def cost_document(shape: CostShape, lengths: Iterable[int]) -> dict[str, Any]:
    """The JSON of ``msa-bench cost``: a row a length, the ceiling and the break-even length."""
    return {
        "shape": asdict(shape),
        "rows": [asdict(row) for row in cost_rows(shape, list(lengths))],
        "ceiling": shape.ceiling,
        "break_even": shape.break_even,
    }


def speed_limits(
    series: Iterable[SpeedSeries], *, device: str = "cpu", threads: int = 1
) -> dict[str, Any] | None:
    """The cost table of the prefills among ``series``; None unless all have one shape.

    With it, as ``roofline``, the work of each prefill and decode and what the machine does at best,
    which is measured now: nothing else may run. Without it where this process cannot measure.

    Args:
        series: as they are timed; of the cost table anything but single-sequence prefill is left
            out.
        device: where they are timed.
        threads: of a process that times them.
    """
    timed = list(series)
    attends = [one.case for one in timed if one.operation == "attend"]
    cases = [case for case in attends if case.q_lens == case.k_lens and len(case.q_lens) == 1]
    shapes = {replace(_shape(c), element_bytes=1, index_element_bytes=1) for c in cases}
    if len(shapes) != 1:
        return None
    widest = max(_shape(case).element_bytes for case in cases)
    shape = replace(shapes.pop(), element_bytes=widest, index_element_bytes=widest)
    decoded = [one.case for one in timed if one.operation == "sparse_decode"]
    work = [row for case in cases for row in _prefill_work(case)] + list(map(_decode_work, decoded))
    work = list({tuple(row.values()): row for row in work}.values())
    document = cost_document(shape, sorted({c.k_lens[0] for c in cases}))
    try:
        peaks = machine_peaks({row["dtype"] for row in work}, device=device, threads=threads)
    except (RuntimeError, AssertionError):
        # The judge's torch may have no CUDA, or the GPU no room: no reason to lose a verdict.
        return document
    return {**document, "roofline": {"work": work, "peaks": peaks}}


def _shape(case: Case) -> CostShape:
    size = torch.empty(0, dtype=case.torch_dtype).element_size()
    return CostShape(case.Hq, case.Hkv, case.D, case.Di, case.block, case.topk, size, size)


def _prefill_work(case: Case) -> list[dict[str, Any]]:
    """Operations over exactly the causal pairs; inputs read once, outputs written once."""
    shape, length = _shape(case), case.k_lens[0]
    dense, sparse = exact_flops(shape, length)
    elements = 2 * (shape.q_heads + shape.kv_heads) * shape.dim * length
    return [
        _work("dense", case, dense, elements * shape.element_bytes),
        _work("prefill", case, sparse, prefill_bytes(shape, length)),
    ]


def _decode_work(case: Case) -> dict[str, Any]:
    """One token over the blocks that are given: keys and values of what it attends."""
    shape, length = _shape(case), case.k_lens[0]
    attended = attended_tokens(length - 1, block=shape.block, topk=shape.topk)
    flops = 4 * shape.q_heads * shape.dim * attended
    return _work(
        "decode", case, flops, 2 * shape.kv_heads * shape.dim * attended * shape.element_bytes
    )


def _work(what: str, case: Case, flops: float, moved: float) -> dict[str, Any]:
    length = case.k_lens[0]
    return {"what": what, "dtype": case.dtype, "length": length, "flops": flops, "bytes": moved}
