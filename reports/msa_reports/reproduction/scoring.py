"""The sections on selectors: scorers compared, and what perplexity does not see of them."""

from __future__ import annotations

from msa_reports.documents import Object
from msa_reports.reproduction import sources
from msa_reports.reproduction.curves import (
    BROKEN,
    Curve,
    Row,
    change_text,
    numbers,
    read_curve,
    recall_plot,
    recall_text,
    scatter_plot,
)
from msa_reports.reproduction.layout import Comparison, Section
from msa_reports.reproduction.recalling import OTHER_MODEL, how
from msa_reports.text import markdown, plural

#: The largest change at which the retrofit report still calls a budget usable: k 4, +6.0 %.
PASSES = 0.06
#: Of dense recall: a selector above works.
WORKS = 0.9


def scorers(result: Object) -> Section:
    """What pooling is worth."""
    curve = read_curve(result)
    table = (
        ("max", 4, "almost whole"), ("max", 8, "whole"), ("mean", 8, "0 of 12"),
        ("mean", 16, "a coin flip"), ("quest", 8, "0 of 12"), ("quest", 16, "a coin flip"),
        ("random", 16, "0 of 12"),
    )  # fmt: skip
    why = {
        "max": OTHER_MODEL,
        "mean": OTHER_MODEL + " A smaller block may dilute a fact less.",
        "quest": OTHER_MODEL + " A bound over fewer keys is tighter.",
        "random": f"{OTHER_MODEL} Chance keeps k of {curve.length // curve.block} blocks here.",
    }
    compared = tuple(
        Comparison(f"{name}, k {k}", text, f"{sources.RETROFIT}, twelve facts",
                   recall_text(curve.at(name, k)), why[name])
        for name, k, text in table
    )  # fmt: skip
    order = sorted((row for row in curve.rows if row.topk == 4), key=lambda row: -row.recall.value)
    ranked = ", ".join(f"{markdown(row.name)} {row.recall.value:.2f}" for row in order)
    return Section(
        title="Scorers compared",
        claim="Above the floor the pooling decides everything: the maximum over a block finds the "
        "fact, the mean and a Quest-style bound lose it until k 16, chance never finds it "
        f"({sources.RETROFIT}). The floor at k 2 is the same for all.",
        method=how(curve) + " `recent` keeps the newest blocks, `oracle` those with the largest "
        "true attention mass.",
        comparisons=compared,
        plots=(recall_plot("scorers", "Recall by scorer against k", (("", curve),),
                           "Bars are 95 % intervals."),),
        tables=(numbers("The numbers", curve),),
        meaning=f"At k 4: {ranked}. Keep the max; simplifying it to a mean is invisible until "
        "something must be found.",
    )  # fmt: skip


def _preferred(broken: Row, working: Row) -> bool:
    """Whether the intervals alone say that ``broken`` predicts text better."""
    high = broken.change.bounds if broken.change else None
    low = working.change.bounds if working.change else None
    return high is not None and low is not None and high[1] < low[0]


def _inverted(curve: Curve) -> str:
    """Says where perplexity prefers a broken selector to one that works; empty where nowhere."""
    dense = curve.dense.recall.value
    pairs = [
        (broken, working)
        for broken in curve.rows
        for working in curve.rows
        if broken.recall.value < BROKEN * dense
        and working.recall.value >= WORKS * dense
        and _preferred(broken, working)
    ]
    if not pairs:
        return ""
    broken, working = max(pairs, key=lambda two: (two[1].recall.value, two[1].topk))
    shown = [
        f"{markdown(row.name)} at k {row.topk} ({change_text(row)}, recall {row.recall.value:.2f})"
        for row in (broken, working)
    ]
    return (
        f"In {plural(len(pairs), 'pair')} of points perplexity prefers a broken selector to one "
        f"that works, with intervals apart: {shown[0]} before {shown[1]}. "
    )


def blindness(result: Object) -> Section:
    """What perplexity alone lets through."""
    curve = read_curve(result)
    floor = BROKEN * curve.dense.recall.value
    let = [
        row for row in curve.rows
        if row.change and row.change.value <= PASSES and row.recall.value < floor
    ]  # fmt: skip
    listed = "; ".join(
        f"{markdown(row.name)} at k {row.topk} ({change_text(row)}, recall {row.recall.value:.2f})"
        for row in let
    )
    compared = (
        Comparison("random selection, k 16: perplexity", "+3.7%", sources.RETROFIT,
                   change_text(curve.at("random", 16)), OTHER_MODEL),
        Comparison("random selection, k 16: recall", "0 of 12", sources.RETROFIT,
                   recall_text(curve.at("random", 16)), OTHER_MODEL),
    )  # fmt: skip
    return Section(
        title="Perplexity does not see a broken selector",
        claim="Random selection costs 3.7 % of perplexity at k 16 and all of the recall: an "
        f"evaluation by perplexity alone waves it through ({sources.RETROFIT}).",
        method=how(curve) + " Each point is a selector at a budget; broken means less than half "
        "of dense recall. The line is the +6.0 % at which that report's max (k 4) still works.",
        comparisons=compared,
        plots=(scatter_plot("blindness", "Recall against change of perplexity", curve,
                            "Lower left: broken, and perplexity does not say so.", PASSES),),
        tables=(numbers("The numbers", curve),),
        meaning=f"A limit of +6.0 % on perplexity lets {plural(len(let), 'broken point')} of "
        f"{len(curve.rows)} through{': ' + listed if let else ''}. {_inverted(curve)}"
        "Gate on recall.",
    )  # fmt: skip
