"""The sections on the budget: perplexity and recall against k, one needle against twelve."""

from __future__ import annotations

from msa_reports.documents import Object, objects
from msa_reports.reproduction import sources
from msa_reports.reproduction.curves import (
    BROKEN,
    Curve,
    Row,
    change_plot,
    change_text,
    numbers,
    read_curve,
    recall_plot,
    recall_text,
)
from msa_reports.reproduction.layout import Comparison, Section
from msa_reports.reproduction.reading import part

OTHER_MODEL = "Another model, text, length and block: shapes can agree, levels need not."
#: Why a single free slot may be enough here.
_ONE_AT_A_TIME = (
    "Ours asks for one fact at a time, and one free slot holds it; whether theirs asked for all "
    "twelve at once is not said. "
)
#: Difference of recall from which one needle and twelve are said to differ.
_TELLING = 0.15


def how(curve: Curve) -> str:
    return (
        f"Contexts of {curve.length:,} bytes, blocks of {curve.block}, local block and first block "
        f"forced and counted in k. Dense attention recalls {curve.dense.recall}. Intervals: the "
        "wider of Wilson's and a bootstrap over contexts for recall, a bootstrap over texts, "
        "paired, for the change of perplexity."
    )


def budget(result: Object) -> Section:
    """Perplexity and recall against k."""
    curves = [read_curve(one) for one in objects(result, "curves")]
    main = curves[0]
    published = ((16, "+0.14%"), (8, "+0.92%"), (4, "+6.0%"))
    compared = [
        Comparison(f"change of perplexity, k {k}", text, f"{sources.RETROFIT}, Qwen2.5-3B, 4K "
                   "tokens, blocks of 128", change_text(main.at("max", k)), OTHER_MODEL)
        for k, text in published
    ]  # fmt: skip
    recalls = ((2, "0 of 12"), (3, "a third"), (4, "almost whole"), (8, "whole"))
    compared += [
        Comparison(f"recall of twelve facts, k {k}", text, f"{sources.RETROFIT}, Qwen2.5-3B",
                   recall_text(main.at("max", k)), (_ONE_AT_A_TIME if k == 3 else "") + OTHER_MODEL)
        for k, text in recalls
    ]  # fmt: skip
    free = main.at("max, no sink", 2)
    compared.append(
        Comparison("recall at k 2 without the forced first block", "none", "", recall_text(free),
                   "Our control: the same k with one slot more to choose.")
    )  # fmt: skip
    labelled = [(f"{c.length:,} bytes: " if len(curves) > 1 else "", c) for c in curves]
    floor = main.at("max", 2)
    return Section(
        title="Perplexity and recall against the budget",
        claim="Perplexity degrades smoothly as k falls, and recall of twelve facts falls off a "
        "cliff at k 2, where the two forced blocks (local and first) take the whole budget "
        f"({sources.RETROFIT}).",
        method=how(main),
        comparisons=tuple(compared),
        plots=(
            recall_plot("budget-recall", "Recall of twelve facts against k", labelled,
                        "Bars are 95 % intervals."),
            change_plot("budget-perplexity", "Change of perplexity against k", labelled,
                        "Against dense attention on the same texts; bars are 95 % intervals."),
        ),
        tables=tuple(numbers(f"The numbers, {c.length:,} bytes", c) for c in curves),
        meaning=f"{_cliff(floor, free, main.dense)} Keep k well above the blocks that are forced, "
        "and test recall at the k you ship.",
    )  # fmt: skip


def _cliff(floor: Row | None, free: Row | None, dense: Row) -> str:
    if floor is None or free is None:
        return "The cliff was not measured."
    fell = floor.recall.value < 0.2 * dense.recall.value
    freed = free.recall.value > BROKEN * dense.recall.value
    if fell and freed:
        return (
            f"The cliff is here too: recall {floor.recall} at k 2, and {free.recall} at the same k "
            "once the first block is not forced. It is budget arithmetic, not scoring."
        )
    if fell:
        return f"Recall at k 2 is {floor.recall}, and {free.recall} without the forced first block."
    return f"There is no cliff here: recall {floor.recall} at k 2."


def needles(result: Object) -> Section:
    """One needle against twelve."""
    single, twelve = read_curve(part(result, "single")), read_curve(part(result, "twelve"))
    why = (
        "Ours holds one fact in a context that is otherwise text, and asks in the pattern that the "
        "model was trained on. At k 2 no slot is free, for one needle as for twelve."
    )
    compared = tuple(
        Comparison(f"one needle, k {k}", text, f"{sources.RETROFIT}, 16K tokens, Qwen2.5-3B",
                   recall_text(single.at("max", k)), why)
        for k, text in (
            (2, "no figure"), (4, "found"), (8, "found at every setting tried, which are not "
             "listed"), (16, "the same"),
        )
    ) + tuple(
        Comparison(f"twelve facts, k {k}", text, sources.RETROFIT,
                   recall_text(twelve.at("max", k)), OTHER_MODEL)
        for k, text in ((2, "0 of 12"), (4, "almost whole"), (8, "whole"))
    )  # fmt: skip
    return Section(
        title="One needle and twelve",
        claim="A single hidden fact is found at every setting tried, k 4 at 16K tokens included, "
        f"and so tells nothing; twelve facts show the floor ({sources.RETROFIT}).",
        method=how(single) + " Random selection stands beside it as the control that must fail.",
        comparisons=compared,
        plots=(
            recall_plot("needles", "Recall of one needle and of twelve facts against k",
                        (("one: ", single), ("twelve: ", twelve)), "Bars are 95 % intervals."),
        ),
        tables=(numbers("One needle", single), numbers("Twelve facts", twelve)),
        meaning=f"{_gap(single, twelve)} Either way a needle test is worth what its control is: "
        "show beside it a selection that must fail.",
    )  # fmt: skip


def _gap(single: Curve, twelve: Curve) -> str:
    gaps = {
        row.topk: row.recall.value - other.recall.value
        for row in single.rows
        if row.name == "max" and (other := twelve.at("max", row.topk)) is not None
    }
    worst = max(gaps, key=lambda k: abs(gaps[k]), default=0)
    if not worst or abs(gaps[worst]) < _TELLING:
        return (
            "Here one needle and twelve say the same at every budget, because each question asks "
            "for one fact and one free slot is enough: the number of needles does not tell a good "
            "budget from a bad one, the questions do."
        )
    return f"They differ most at k {worst}, by {gaps[worst]:.2f} in recall."
