"""The section on routes: Full, PT and CPT on equal tokens, and what their index branches choose."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msa_reports import svg
from msa_reports.documents import Object, count, get, objects, optional_number
from msa_reports.reproduction import sources
from msa_reports.reproduction.layout import Comparison, Plot, Section, Table
from msa_reports.reproduction.reading import estimate
from msa_reports.scale import Axis
from msa_reports.text import markdown, number, share

_COLUMNS = ("full", "free", "pt", "cpt")
_WAYS = {
    "index": "the trained branch",
    "free": "training-free",
    "free_sink": "training-free, first block forced",
    "oracle": "oracle",
    "teacher": "a branch equal to its teacher",
}
_SMALL = "A far smaller model, far fewer tokens, one seed."


def render(result: Object) -> Section:
    """Tasks of the three routes, the choices of the index branches, and their training."""
    models = objects(result, "models")
    tasks = objects(result, "tasks")
    choices = objects(result, "choices")
    return Section(
        title="Dense, from scratch, converted",
        claim="A model that trains with MSA from the start (PT), and a dense one that is converted "
        "(CPT), are on a par with full attention after as many tokens "
        f"({sources.PAPER}). A trained scorer should keep at least what the training-free one "
        f"keeps ({sources.RETROFIT}, as an inference).",
        method=_method(models),
        comparisons=tuple(_comparisons(tasks, choices)),
        plots=(
            _log_plot("routes-text", "Text in training", models, "text_nll", "nats per byte"),
            _log_plot("routes-index", "Loss of the index branch", models, "index_kl", "nats"),
            _mass_plot(choices),
        ),
        tables=(_task_table(tasks), _choice_table(choices)),
        meaning=_meaning(choices),
    )


def _method(models: Sequence[Object]) -> str:
    told = {get(one, "name", str): one for one in models}
    tokens = ", ".join(f"{markdown(name)} {count(one, 'tokens') / 1e6:.2f} M" for name, one in
                       told.items())  # fmt: skip
    plans = {name: plan for name, one in told.items() if isinstance(plan := one.get("index"), dict)}
    sparse = "".join(
        f" While sparse, a query of `{markdown(name)}` keeps {_turns(plan)} blocks of "
        f"{count(plan, 'block')} tokens, the local one among them; its first "
        f"{count(plan, 'warmup')} steps are warm-up with full attention."
        for name, plan in plans.items()
    )
    return (
        f"Tokens read in the last run of each: {tokens}; `full` and `cpt` go on from the embedded "
        "dense model, so that all three have read as many in all. `free` is `full` with the "
        f"training-free retrofit.{sparse} Tasks are the suite's, greedy answers, contexts of "
        "2,048 to 8,192 bytes."
    )


def _turns(plan: Object) -> str:
    """The k of the sparse steps."""
    found = plan.get("also_topk", [])
    if not isinstance(found, list) or not all(isinstance(k, int) for k in found):
        raise ValueError(f"also_topk: wanted a list of ints, got {found!r:.80}")
    return " and in turn ".join(str(k) for k in (count(plan, "topk"), *found))


def _recall(tasks: Sequence[Object], column: str) -> str:
    found = [estimate(one, column).value for one in tasks if one.get("recall") is True]
    return share(sum(found) / len(found)) if found else "not measured"


def _row_at(choices: Sequence[Object], model: str, scorer: str, topk: int) -> Object | None:
    wanted = (model, scorer, topk)
    found = (one for one in choices if (one["model"], one["scorer"], one["topk"]) == wanted)
    return next(found, None)


def _comparisons(tasks: Sequence[Object], choices: Sequence[Object]) -> list[Comparison]:
    ours = " / ".join(_recall(tasks, name) for name in ("full", "pt", "cpt"))
    rows = [
        Comparison("retrieval, Full / PT / CPT", "79.8 / 84.2 / 77.2 (8K), 75.0 / 77.5 / 75.7 "
                   "(32K)", f"{sources.PAPER}, RULER, 109B, 3 trillion tokens",
                   f"{ours} (mean of the tasks)", _SMALL + " Single tasks are below."),
    ]  # fmt: skip
    for model in ("cpt", "pt"):
        row = _row_at(choices, model, "index", 4)
        if row is None:
            continue
        free = _row_at(choices, model, "free", 4) or {}
        oracle = _row_at(choices, model, "oracle", 4) or {}
        taught = _row_at(choices, model, "teacher", 4) or {}
        rows.append(
            Comparison(f"attention mass kept at k 4, {model}", "trained at least training-free",
                       f"{sources.RETROFIT}, inferred",
                       f"trained {_share(row, 'mass')}, training-free {_share(free, 'mass')}, "
                       f"oracle {_share(oracle, 'mass')}; difference "
                       f"{_share(row, 'mass_difference', sign=True)}",
                       "The same forced blocks for all; paired by text. A branch that equals its "
                       f"teacher keeps {_share(taught, 'mass')}: the loss asks for the weights of "
                       "tokens, and a block is ranked by its best one.")
        )  # fmt: skip
        sink = _row_at(choices, model, "free_sink", 4) or {}
        rows.append(
            Comparison(f"the same, each with the forced blocks of its recipe, {model}",
                       "trained at least training-free", f"{sources.RETROFIT}, inferred",
                       f"trained {_share(row, 'mass')}, training-free {_share(sink, 'mass')}",
                       "The training-free recipe forces the first block, too, which costs a slot.")
        )  # fmt: skip
    row = _row_at(choices, "cpt", "index", 16)
    if row is not None:
        rows.append(
            Comparison("perplexity of cpt at k 16", "+0.14%", f"{sources.RETROFIT}, training-free",
                       f"{_change(row, 'nats_from_full')} from `full` dense, "
                       f"{_change(row, 'nats_from_own')} from itself dense",
                       "Ours is trained sparse, and reads text and facts.")
        )  # fmt: skip
    return rows


def _share(row: Object, name: str, *, sign: bool = False) -> str:
    if not row:
        return "not measured"
    found = estimate(row, name)
    text = share(found.value, sign=sign)
    if found.bounds is None:
        return text
    low, high = (share(bound, sign=sign) for bound in found.bounds)
    return f"{text} ({low} to {high})"


def _change(row: Object, name: str) -> str:
    """A difference of nats as a change of perplexity."""
    if name not in row:
        return "attends nothing"
    found = estimate(row, name)
    text = share(math.expm1(found.value), sign=True)
    if found.bounds is None:
        return text
    low, high = (share(math.expm1(bound), sign=True) for bound in found.bounds)
    return f"{text} ({low} to {high})"


def _log_plot(name: str, title: str, models: Sequence[Object], key: str, unit: str) -> Plot:
    lines = []
    for slot, one in enumerate(models):
        points = tuple(
            (float(count(line, "step")), value)
            for line in objects(one, "log")
            if (value := optional_number(line, key)) is not None
        )
        if points:
            lines.append(svg.Line(get(one, "name", str), points, slot, marks=False))
    chart = svg.Chart(
        title,
        f"{title}, for {len(lines)} models, means over 50 steps.",
        Axis("step of the last run"),
        Axis(unit),
        tuple(lines),
    )
    return Plot(name, chart, f"{title}: longer contexts come later, so curves have steps.")


def _mass_plot(choices: Sequence[Object]) -> Plot:
    lines = []
    for slot, (way, label) in enumerate(_WAYS.items()):
        rows = [one for one in choices if (one["model"], one["scorer"]) == ("cpt", way)]
        found = [(float(count(one, "topk")), estimate(one, "mass")) for one in rows]
        points = tuple((k, one.value) for k, one in found)
        bounds = tuple((k, *one.bounds) for k, one in found if one.bounds)
        lines.append(svg.Line(label, points, slot, bounds=bounds))
    ticks = tuple(sorted({k for line in lines for k, _ in line.points}))
    chart = svg.Chart(
        "Attention mass kept by the converted model",
        f"Mean share over layers, groups and texts, for {len(_WAYS)} ways to choose.",
        Axis("k (blocks per query, log scale)", base=2, ticks=ticks),
        Axis("mass kept", show=share),
        tuple(lines),
    )
    return Plot("routes-mass", chart, "Bars are 95 % intervals over texts.")


def _task_table(tasks: Sequence[Object]) -> Table:
    rows = []
    for one in tasks:
        cells = [str(estimate(one, name)) for name in _COLUMNS]
        changes = [str(estimate(one, f"{name}_difference")) for name in ("pt", "cpt")]
        rows.append((get(one, "task", str), get(one, "metric", str), *cells, *changes))
    columns = ("task", "metric", *_COLUMNS, "pt - full", "cpt - full")
    return Table("Every task (recall: more is better; nats: less is)", columns, rows)


def _choice_table(choices: Sequence[Object]) -> Table:
    rows = [
        (
            get(one, "model", str),
            _WAYS.get(get(one, "scorer", str), get(one, "scorer", str)),
            number(count(one, "topk")),
            _share(one, "mass"),
            _share(one, "blocks"),
            _share(one, "mass_difference", sign=True),
            *(_change(one, f"nats_from_{dense}") for dense in ("full", "own")),
        )
        for one in choices
    ]
    columns = (
        "model", "who chooses", "k", "mass kept", "of the oracle's blocks", "mass against free",
        "perplexity against full", "against itself dense",
    )  # fmt: skip
    return Table("What is chosen, and what it costs", columns, rows)


def _meaning(choices: Sequence[Object]) -> str:
    row = _row_at(choices, "cpt", "index", 4)
    if row is None:
        return "Not measured."
    found = estimate(row, "mass_difference")
    low, high = found.bounds or (found.value, found.value)
    told = (
        "keeps more of the attention than"
        if low > 0
        else "keeps less of the attention than"
        if high < 0
        else "is not told apart, by the attention it keeps, from"
    )
    sink = _row_at(choices, "cpt", "free_sink", 4) or {}
    return (
        f"At k 4 the trained branch {told} the training-free scorer on the same model with the "
        f"same blocks forced; each with its recipe's, it keeps {_share(row, 'mass')} and the "
        f"other {_share(sink, 'mass')}. The branch needs none of the main branch's queries and "
        "keys, which is what makes a decode step cheap. The table says what its choices cost in "
        "perplexity."
    )
