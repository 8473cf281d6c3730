"""Maps of the kept blocks, what the slots went to, and how far groups differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from msa_reports import svg
from msa_reports.documents import Object, count, get, objects
from msa_reports.reproduction import sources
from msa_reports.reproduction.layout import Comparison, Plot, Section, Table
from msa_reports.reproduction.reading import Estimate, estimate, part
from msa_reports.scale import Axis
from msa_reports.text import share

_MOST_MAPS = 24
_TRAITS = {
    "first": "chose the first block",
    "diagonal": "went to the two blocks before",
    "stripes": "went to stripes",
    "bands": "went to bands",
    "reach": "how far back",
}


def _shown(found: Estimate) -> str:
    if found.bounds is None:
        return share(found.value)
    return f"{share(found.value)} ({share(found.bounds[0])} to {share(found.bounds[1])})"


def _distance(found: Estimate) -> str:
    if found.bounds is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.bounds[0]:.2f} to {found.bounds[1]:.2f})"


def render(result: Object) -> Section:
    """The section on the selection."""
    layers = objects(result, "layers")
    groups = [(layer, group) for layer in layers for group in objects(layer, "groups")]
    numbers = {name: [estimate(one, name).value for _, one in groups] for name in _TRAITS}
    chance, chance_first = (
        fmean(estimate(one, name).value for _, one in groups)
        for name in ("chance_diagonal", "chance_first")
    )
    apart = sum(map(_specialised, layers))
    why = (
        "Their selector is trained and their model 109B; ours scores with its own keys, untrained."
    )
    compared = (
        Comparison("the diagonal", "heads concentrate on it", f"{sources.OVERVIEW}, a figure",
                   f"{_range(numbers['diagonal'])} of the free slots go to the two blocks before "
                   f"the query's own; by chance {share(chance)}", why),
        Comparison("the first block", "heads concentrate on it", sources.OVERVIEW,
                   f"chosen by {_range(numbers['first'])} of the queries, by chance "
                   f"{share(chance_first)}", why),
        Comparison("long-range stripes", "a few", sources.OVERVIEW,
                   f"{_range(numbers['stripes'])} of the free slots go to key blocks that at "
                   f"least half of the later queries keep, {_range(numbers['bands'])} to distances "
                   "that at least half of the queries keep", why),
        Comparison("groups specialise", "open question, at small scale too", sources.NEWS,
                   f"in {apart} of {len(layers)} layers by the measure below",
                   "Nobody has published a figure."),
    )  # fmt: skip
    return Section(
        title="What is selected, and whether groups differ",
        claim="Heads keep the local diagonal, the first block and a few long-range stripes "
        f"({sources.OVERVIEW}). Groups choose for themselves and might specialise; whether they "
        f"do, and at small scale, is open ({sources.NEWS}).",
        method=f"{count(result, 'texts')} held-out texts of {count(result, 'length'):,} bytes, "
        f"blocks of {count(result, 'block')}, k {count(result, 'topk')}, scorer max, only the "
        "local block forced. Counted are the freely chosen blocks of queries that have more "
        "blocks than slots. Two groups' choices for the same query are compared by Jaccard "
        "distance (0: the same, 1: nothing in common), beside one group's choices for two "
        "neighbouring queries of a block, and random sets of the same sizes. A stripe is a key "
        "block, a band a distance, that at least half of the queries keep. Intervals are over "
        "texts, without a correction for several traits.",
        comparisons=compared,
        plots=tuple(_maps(objects(result, "maps"))),
        tables=(_traits(layers), _distances(layers), _pairs(layers)),
        meaning=f"By this measure groups specialise in {apart} of {len(layers)} layers: there they "
        "differ more from each other than a group does from one query to the next, and in at least "
        f"one trait text after text. The largest such difference is "
        f"{100 * _largest(layers):.1f} points. "
        "Where groups differ, one selection shared by all groups would throw "
        "something away; whether it costs recall is for a test of your own model.",
    )


def _range(values: Sequence[float]) -> str:
    return f"{share(min(values))} to {share(max(values))}"


def _specialised(layer: Object) -> bool:
    """Groups differ more than neighbours do, and some pair in a trait, beyond the intervals."""
    distances = part(layer, "distances")
    if "groups" not in distances:
        return False
    between, near = estimate(distances, "groups"), estimate(distances, "neighbours")
    if between.bounds is None or near.bounds is None or between.bounds[0] <= near.bounds[1]:
        return False
    traits = [
        bounds
        for pair in objects(layer, "pairs")
        for name in ("first", "diagonal", "reach")
        if (bounds := estimate(pair, name).bounds) is not None
    ]
    return any(low > 0 or high < 0 for low, high in traits)


def _largest(layers: Sequence[Object]) -> float:
    """The largest difference of two groups in a trait, whichever is ahead."""
    values = [
        abs(estimate(pair, name).value)
        for layer in layers
        for pair in objects(layer, "pairs")
        for name in ("first", "diagonal", "reach")
    ]
    return max(values, default=0.0)


def _traits(layers: Sequence[Object]) -> Table:
    rows = [
        (f"{layer.get('layer')}", f"{number}", *(_shown(estimate(group, n)) for n in _TRAITS))
        for layer in layers
        for number, group in enumerate(objects(layer, "groups"))
    ]
    columns = ("layer", "group", *_TRAITS.values())
    return Table("What the free slots went to", columns, rows)


def _distances(layers: Sequence[Object]) -> Table:
    names = ("groups", "neighbours", "chance")
    rows = []
    for layer in layers:
        found = part(layer, "distances")
        cells = [_distance(estimate(found, n)) if n in found else "one group" for n in names]
        rows.append((f"{layer.get('layer')}", *cells))
    columns = ("layer", "two groups, one query", "one group, neighbours", "random sets")
    return Table("Jaccard distance of free choices", columns, rows)


def _pairs(layers: Sequence[Object]) -> Table:
    rows = [
        (
            f"{layer.get('layer')}",
            " and ".join(map(str, get(pair, "groups", list))),
            *(_shown(estimate(pair, name)) for name in ("first", "diagonal", "reach")),
        )
        for layer in layers
        for pair in objects(layer, "pairs")
    ]
    columns = ("layer", "groups", "first block", "two blocks before", "how far back")
    return Table("One group less another, text by text", columns, rows)


def _maps(maps: Sequence[Object]) -> Iterator[Plot]:
    for one in maps[:_MOST_MAPS]:
        layer, group = get(one, "layer", int), get(one, "group", int)
        rows = tuple(_row(row) for row in get(one, "rows", list))
        chart = svg.Chart(
            f"Layer {layer}, group {group}",
            f"Share of the queries of each of {len(rows)} blocks that keeps each key block.",
            Axis("key block", include=(0.0, float(len(rows)))),
            Axis("block of queries", include=(0.0, float(len(rows)))),
            heat=svg.Heat(rows),
        )
        yield Plot(f"selection-{layer}-{group}", chart, f"Layer {layer}, group {group}")


def _row(row: object) -> tuple[float, ...]:
    if not isinstance(row, list) or not all(
        isinstance(cell, float | int) and 0 <= cell <= 1 for cell in row
    ):
        raise ValueError(f"rows: wanted lists of shares, got {row!r:.80}")
    return tuple(map(float, row))
