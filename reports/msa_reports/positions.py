"""What a model read, place by place: nats by position, and the key blocks that were kept."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean

from msa_harness.records import Sample
from msa_reports import svg
from msa_reports.figures import Figure, figure
from msa_reports.scale import Axis
from msa_reports.text import number, plural, share, signed

_NLL = "quality/positions/nll"
_BLOCKS = "quality/positions/distinct"
_TEXT = re.compile(r"[^/]+/(\d{1,9})")
_PLACE = re.compile(r"layer-(\d{1,4})/group-(\d{1,4})/block-(\d{1,4})")
_MOST_MAPS = 24
_MOST_LISTED = 8

Rows = Mapping[int, tuple[float, ...]]  # block of queries -> share that keeps each key block
Place = tuple[int, int, str]  # layer, group, subject


def nll_figures(samples: Iterable[Sample]) -> Iterator[Figure]:
    """Yield nats per token by position: dense, base and head; nothing where none was recorded."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        match = _TEXT.fullmatch(sample.item)
        if sample.value is None or match is None:
            continue
        if sample.series == _NLL:
            found[sample.subject][int(match[1])].append(sample.value)
        elif sample.series == _NLL + "/dense":
            found["dense"][int(match[1])].append(sample.value)
    lines: dict[str, dict[int, float]] = {
        name: {start: fmean(values) for start, values in sorted(found[name].items())}
        for name in ("dense", "base", "head")
        if name in found
    }
    if not {"base", "head"} & lines.keys():
        return
    starts = sorted({start for line in lines.values() for start in line})
    names = {"dense": "dense attention", "base": "MSA, base", "head": "MSA, head"}
    chart = svg.Chart(
        "Token NLL by position",
        f"Nats per token at {plural(len(starts), 'position')} of a text, "
        f"of {', '.join(names[name] for name in lines)}.",
        Axis("position in the text (tokens)", include=(0.0,)),
        Axis("nats per token"),
        tuple(
            svg.Line(names[name], tuple((float(n), v) for n, v in lines[name].items()), slot)
            for slot, name in enumerate(names)
            if name in lines
        ),
    )
    yield figure(
        chart,
        name="positions-nll",
        caption="Lower is better. Means over the same texts for each line; the texts are easier in "
        "some places than in others, so compare the lines with each other.",
        columns=("from token", *(names[name] for name in lines), "head - base"),
        rows=[
            (
                f"{start:,}",
                *(number(lines[name].get(start)) for name in lines),
                signed(_difference(lines, start)),
            )
            for start in starts
        ],
    )


def _difference(lines: Mapping[str, Mapping[int, float]], start: int) -> float | None:
    base, head = (lines.get(name, {}).get(start) for name in ("base", "head"))
    return None if base is None or head is None else head - base


def selection_figures(samples: Iterable[Sample], missing: list[str]) -> Iterator[Figure]:
    """Yield a map of the kept blocks for every layer, group and subject.

    Where base and head keep the same there is one map of both. What is left out for length is
    said in ``missing``.
    """
    maps = _maps(samples)
    shown = 0
    for layer, group in sorted({(layer, group) for layer, group, _ in maps}):
        base, head = (maps.get((layer, group, name)) for name in ("base", "head"))
        pairs = [("base", base), ("head", head)] if base != head else [("base and head", head)]
        for subject, rows in pairs:
            if rows is None:
                continue
            if shown == _MOST_MAPS:
                missing.append("Selection maps of further layers and groups, for length.")
                return
            yield _map(layer, group, subject, rows, name=f"selection-{shown}")
            shown += 1


def _maps(samples: Iterable[Sample]) -> dict[Place, Rows]:
    maps: dict[Place, dict[int, tuple[float, ...]]] = defaultdict(dict)
    for sample in samples:
        match = _PLACE.fullmatch(sample.item) if sample.series == _BLOCKS else None
        if match is None:
            continue
        layer, group, block = map(int, match.groups())
        if len(sample.raw) == block + 1 and all(0 <= kept <= 1 for kept in sample.raw):
            maps[layer, group, sample.subject][block] = sample.raw
    return dict(maps)


def _map(layer: int, group: int, subject: str, rows: Rows, *, name: str) -> Figure:
    count = max(rows) + 1
    distinct = {block: sum(kept > 0 for kept in shares) for block, shares in rows.items()}
    mean = fmean(distinct.values())
    what = f"layer {layer}, group {group}"
    chart = svg.Chart(
        f"{what.capitalize()}: {subject}",
        f"Share of the queries of each of {plural(count, 'block')} that keeps each key block, "
        f"{what}, {subject}. The queries of a block keep {mean:.1f} blocks together on average.",
        Axis("key block", include=(0.0, float(count))),
        Axis("block of queries", include=(0.0, float(count))),
        heat=svg.Heat(tuple(rows.get(block, ()) for block in range(count))),
    )
    return figure(
        chart,
        name=name,
        group="Which blocks are kept",
        caption=f"The queries of a block keep {mean:.1f} blocks together, on average.",
        columns=("queries", "blocks", "kept most (share of the queries)"),
        rows=[(f"{block}", f"{distinct[block]}", _listed(rows[block])) for block in sorted(rows)],
    )


def _listed(shares: tuple[float, ...]) -> str:
    kept = [(-part, block) for block, part in enumerate(shares) if part > 0]
    listed = ", ".join(f"{block} ({share(-part)})" for part, block in sorted(kept)[:_MOST_LISTED])
    rest = len(kept) - _MOST_LISTED
    return f"{listed}, {rest} more" if rest > 0 else listed
