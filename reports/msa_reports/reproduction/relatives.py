"""MSA beside its relatives at equal numbers of attended tokens, and what of each is a stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msa_reports import svg
from msa_reports.documents import Object, count, get, number, objects
from msa_reports.reproduction import sources
from msa_reports.reproduction.curves import changed
from msa_reports.reproduction.layout import Comparison, Plot, Section, Table
from msa_reports.reproduction.reading import Estimate, estimate, part
from msa_reports.scale import Axis
from msa_reports.text import clean, markdown, plural
from msa_reports.text import number as shown

#: In the overview article's table, which has no figures.
_LISTED = ("msa", "moba", "infllm_v2", "nsa_standin", "dsa_standin")
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One rule at one budget in tokens; dense attention has the budget 0."""

    name: str
    tokens: int
    recall: Estimate
    perplexity: float
    change: Estimate


def _row(row: Object) -> Row:
    return Row(
        name=get(row, "name", str),
        tokens=get(row, "tokens", int),
        recall=estimate(row, "recall"),
        perplexity=number(row, "perplexity"),
        change=_change(row),
    )


def _change(row: Object) -> Estimate:
    """With an interval, or, as it was recorded at first, without."""
    if isinstance(row.get("change"), dict):
        return estimate(row, "change")
    return Estimate(number(row, "change"), None, None, 0)


def render(result: Object) -> Section:
    """The section on MSA's relatives."""
    dense, rows = _row(part(result, "dense")), [_row(one) for one in objects(result, "rows")]
    rules = objects(result, "rules")
    names = [get(rule, "name", str) for rule in rules]
    compared = tuple(
        Comparison(
            f"{get(rule, 'name', str)}: recall of twelve facts",
            "listed, no figure" if rule["name"] in _LISTED else "not listed",
            sources.OVERVIEW,
            "; ".join(f"{one.tokens} tokens: {one.recall}" for one in _of(rows, rule["name"])),
            get(rule, "stand_in", str),
        )
        for rule in rules
    )
    return Section(
        title="MSA and its relatives at equal budgets",
        claim="MSA stands in a line with NSA, InfLLM-V2, MoBA and DSA, which choose in other "
        f"pieces and by other signals ({sources.OVERVIEW}, in a table without figures: there is "
        "nothing published to reproduce).",
        method="One model that was trained with dense attention, under the selection rule of each "
        "method, at equal numbers of attended tokens; "
        f"{plural(count(result, 'contexts'), 'context')} of {count(result, 'length'):,} bytes with "
        "twelve facts each, and as many texts. Blocks are a quarter of those in the papers. What a "
        "method trains is left out or has a stand-in, so this compares rules, not methods. Dense "
        f"attention recalls {dense.recall}. Intervals are 95 %, over contexts and texts; "
        "of a recall Wilson's, where that is wider.",
        comparisons=compared,
        plots=(_plot(rows, names),),
        tables=(
            Table("What each rule does of its method", ("rule", "pieces", "faithful", "stand-in",
                  "source"),
                  [tuple(get(rule, key, str) for key in ("name", "pieces", "faithful", "stand_in",
                                                         "source")) for rule in rules],
                  shut=False),
            Table("The numbers", ("rule", "tokens", "recall (95 %)", "perplexity",
                                  "change of perplexity (95 %)"),
                  [(row.name, f"{row.tokens}" if row.tokens else "all", str(row.recall),
                    shown(row.perplexity), changed(row.change))
                   for row in (dense, *rows)]),
        ),
        meaning=_ranked(rows),
    )  # fmt: skip


def _of(rows: Sequence[Row], name: str) -> list[Row]:
    return [row for row in rows if row.name == name]


def _ranked(rows: Sequence[Row]) -> str:
    """The order at the smallest budget; rules whose intervals meet are not told apart."""
    least = min(row.tokens for row in rows)
    order = sorted((row for row in rows if row.tokens == least), key=lambda r: -r.recall.value)
    listed = ", ".join(f"{markdown(row.name)} {row.recall.value:.2f}" for row in order)
    first = order[0]
    beaten = [
        markdown(row.name)
        for row in order[1:]
        if first.recall.low is not None
        and row.recall.high is not None
        and row.recall.high < first.recall.low
    ]
    apart = f"below {markdown(first.name)} beyond the intervals: {', '.join(beaten)}"
    return (
        f"At {least} tokens: {listed}; {apart if beaten else 'no intervals are apart'}. Without "
        "training the order is one of scores and block sizes on this model; a trained method may "
        "stand elsewhere."
    )


def _plot(rows: Sequence[Row], names: Sequence[str]) -> Plot:
    lines = tuple(
        svg.Line(
            clean(name, limit=40),
            tuple((float(row.tokens), row.recall.value) for row in _of(rows, name)),
            slot,
            bounds=tuple(
                (float(row.tokens), *row.recall.bounds)
                for row in _of(rows, name)
                if row.recall.bounds
            ),
        )
        for slot, name in enumerate(names)
    )
    chart = svg.Chart(
        "Recall against the budget, by rule",
        f"Recall of twelve facts by attended tokens for {len(names)} rules.",
        Axis("attended tokens (log scale)", base=2,
             ticks=tuple(sorted({float(row.tokens) for row in rows}))),
        Axis("recall", include=(0.0, 1.0), ticks=_SHARES),
        lines,
    )  # fmt: skip
    return Plot("relatives", chart, "Bars are 95 % intervals.")
