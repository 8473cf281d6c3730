"""How much faster MSA is than dense attention, turn against turn of one run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from msa_harness.records import Sample

PREFILL = re.compile(r"speed/prefill(?:-([a-z0-9]+))?/([1-9][0-9]*)/(.+)")
DENSE = re.compile(r"speed/dense(?:-([a-z0-9]+))?/([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Speedup:
    """One prefill against dense attention of its length.

    Attributes:
        dtype, tokens, overlap: which.
        dense, msa: seconds of one call, medians over turns.
        ratio: median over turns of dense time over MSA time.
        low, high: least and greatest ratio of a turn.
        turns: how many turns were compared.
    """

    dtype: str
    tokens: int
    overlap: str
    dense: float
    msa: float
    ratio: float
    low: float
    high: float
    turns: int


def speedups(samples: Iterable[Sample]) -> list[Speedup]:
    """One row a prefill that has dense attention beside it on head, by dtype, length, overlap.

    A turn of MSA is compared with the same turn of dense attention in the same process, so that
    the machine's drift between turns does not enter.
    """
    dense: dict[tuple[str, int], dict[str, tuple[float, ...]]] = {}
    prefill: dict[tuple[str, int, str], dict[str, tuple[float, ...]]] = {}
    for sample in samples:
        if sample.subject != "head" or not sample.raw or min(sample.raw) <= 0:
            continue
        if match := PREFILL.fullmatch(sample.series):
            key = (match[1] or "float32", int(match[2]), match[3])
            prefill.setdefault(key, {})[sample.item] = sample.raw
        elif match := DENSE.fullmatch(sample.series):
            dense.setdefault((match[1] or "float32", int(match[2])), {})[sample.item] = sample.raw
    rows = []
    for (dtype, tokens, overlap), items in sorted(prefill.items()):
        beside = dense.get((dtype, tokens), {})
        turns = [
            (slow, fast)
            for item, raw in items.items()
            for slow, fast in zip(beside.get(item, ()), raw, strict=False)
        ]
        if turns:
            ratios = [slow / fast for slow, fast in turns]
            rows.append(
                Speedup(
                    dtype=dtype,
                    tokens=tokens,
                    overlap=overlap,
                    dense=median(slow for slow, _ in turns),
                    msa=median(fast for _, fast in turns),
                    ratio=median(ratios),
                    low=min(ratios),
                    high=max(ratios),
                    turns=len(turns),
                )
            )
    return rows


COLUMNS = ("dtype", "tokens", "overlap", "dense, s", "MSA, s", "dense / MSA (range)", "limit")


def table(rows: Iterable[Speedup], limits: Mapping[int, float] | None) -> list[tuple[str, ...]]:
    """Cells of :data:`COLUMNS`; ``limits``: length -> largest ratio that the arithmetic allows."""
    cells: list[tuple[str, ...]] = []
    for row in rows:
        limit = (limits or {}).get(row.tokens)
        cells.append(
            (
                row.dtype,
                f"{row.tokens:,}",
                row.overlap,
                f"{row.dense:.3g}",
                f"{row.msa:.3g}",
                f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}, {row.turns} turns)",
                f"{limit:.2f}" if limit else "n/a",
            )
        )
    return cells
