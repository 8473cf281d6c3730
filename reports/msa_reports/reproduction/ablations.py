"""What each part of the training and the selection is worth, seed by seed against the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msa_reports.documents import Object, count, get, number, objects
from msa_reports.reproduction import sources
from msa_reports.reproduction.ablations_plots import differences_plots, gradient_plot
from msa_reports.reproduction.ablations_reading import (
    DIFFERS,
    MEASURES,
    TOO_FEW,
    Gradients,
    Row,
    read_gradients,
    read_row,
)
from msa_reports.reproduction.layout import Comparison, Section, Table
from msa_reports.reproduction.reading import estimate, part
from msa_reports.text import markdown, plural, share
from msa_reports.text import number as shown

#: What a comparison is, in words; one without an entry goes by its own name.
LABELS: Mapping[str, str] = {
    "base": "base",
    "no_warmup": "no warm-up",
    "no_detach": "no detach",
    "no_detach_10": "no detach, lambda 10",
    "no_detach_100": "no detach, lambda 100",
    "lambda_100": "detached, lambda 100 (control)",
    "no_local": "no forced local block",
    "sink_window": "forced sink and window of two",
    "value_head": "index value head",
    "max": "training-free scorer (max)",
    "oracle": "oracle",
    "dense": "dense attention",
    "mean_pooling": "mean pooling of the index scores",
    "block_16": "blocks of 16, k 8",
    "block_64": "blocks of 64, k 2",
    **{f"k_{k}": f"k {k}" for k in (2, 8, 16)},
    **{f"max_k_{k}": f"training-free scorer, k {k}" for k in (2, 8, 16)},
    **{f"dim_{dim}": f"index dim {dim}" for dim in (16, 32, 64, 128)},
}
_SMALL = "A small model, a short conversion, another task; directions can agree, levels need not."
_SILENT = "no figure"
_DETACH = ("base", "no_detach", "no_detach_10", "no_detach_100")


def label(name: str) -> str:
    """A comparison in words."""
    return LABELS.get(name, name)


def render(result: Object) -> Section:
    """The section on ablations."""
    base, frozen = (read_row(part(result, name)) for name in ("base", "frozen"))
    rows = {row.name: row for row in map(read_row, objects(result, "comparisons"))}
    gradients = {one.name: one for one in map(read_gradients, objects(result, "gradients"))}
    seeds = get(result, "seeds", list)
    return Section(
        title="Ablations",
        claim="The index branch needs a warm-up and a detached loss: without detaching, gradients "
        "spike and training diverges at a larger lambda. Quality hardly depends on the block "
        "size, a value head on the index branch was tried and dropped, and only the local block "
        f"is forced in the end ({sources.PAPER}).",
        method=_method(result, len(seeds)),
        comparisons=_compared(base, rows, gradients),
        plots=(
            *differences_plots([row for row in rows.values() if row.group == "training"]),
            gradient_plot([gradients[name] for name in _DETACH if name in gradients]),
        ),
        tables=(
            _table("Trained otherwise, against the base", base, rows, "training", shut=False),
            _table("The base, read otherwise", base, rows, "reading"),
            _table("Index dim on the frozen model, against 64", frozen, rows, "index dim"),
            _gradients(list(gradients.values())),
            _before(part(result, "start")),
        ),
        meaning=_meaning(rows, len(seeds)),
    )


def _method(result: Object, seeds: int) -> str:
    sizes, index = part(result, "sizes"), part(result, "index")
    steps = [step for step in get(sizes, "curriculum", list) if isinstance(step, list)]
    if not steps or any(len(step) != 3 for step in steps):
        raise ValueError(f"sizes.curriculum: wanted lists of three, got {steps!r:.80}")
    length, batch, _ = steps[0]
    total = sum(step[2] for step in steps)
    return (
        f"Conversions of one dense model, {plural(seeds, 'seed')} each: {total} steps of {batch} x "
        f"{length} bytes, the first {count(sizes, 'warmup')} with full attention; k "
        f"{count(index, 'topk')}, blocks of {count(index, 'block')}, index dim "
        f"{count(index, 'index_dim')}, lambda {shown(number(index, 'coefficient'))}, only the "
        "local block forced. The gradient of the model is clipped to a norm of 1; without "
        "detaching neither the inputs of the index projections nor the teacher are constants. "
        f"Read afterwards: {count(sizes, 'sequences')} held-out sequences of "
        f"{count(sizes, 'length'):,} bytes, the same for all. Mass kept is the share of true "
        "attention in the selected blocks, best blocks kept the share of the k blocks with the "
        "most mass that are selected, forced or not; both of later queries only. A difference is "
        "taken seed by seed and called one only where all seeds agree in sign. The interval of "
        "the answers is Wilson's over the questions of one run, since all runs get the same."
    )


def _both(row: Row | None) -> str:
    """Differences of text and answers."""
    if row is None:
        return "not measured"
    text, answers = (row.difference(name) for name in ("text_nll", "answers"))
    return f"text {text}; answers {answers}"


def _sizes(base: Row, rows: Mapping[str, Row], measure: str) -> str:
    found = [rows.get("block_16"), base, rows.get("block_64")]
    return " / ".join("n/a" if row is None else row.value(measure) for row in found)


def _spikes(gradients: Mapping[str, Gradients]) -> str:
    """Steps far above the base's median, and runs that ended, by lambda."""
    said = []
    for name in _DETACH:
        if name not in gradients:
            continue
        runs = gradients[name].seeds
        spikes = [one.spikes for one in runs if one.spikes is not None]
        ended = sum(one.diverged is not None for one in runs)
        ends = dict.fromkeys(map(share, (min(spikes), max(spikes)))) if spikes else ()
        often = f"{' to '.join(ends)} of the steps" if ends else "n/a"
        said.append(f"{label(name)}: {often}, {ended} of {len(runs)} diverged")
    return "; ".join(said)


def _compared(
    base: Row, rows: Mapping[str, Row], gradients: Mapping[str, Gradients]
) -> tuple[Comparison, ...]:
    paper = sources.PAPER
    blocks = "Ours: 16 / 32 / 64, read at 128 tokens from an index branch trained at 32. "
    plain = (
        ("no warm-up", "warm-up is part of the recipe", "no_warmup"),
        ("detached, lambda 100", "lambda is not printed", "lambda_100"),
        ("no forced local block", "the local block is forced", "no_local"),
        ("an index value head", "tried and dropped", "value_head"),
        ("mean instead of max pooling", "max", "mean_pooling"),
        ("training-free scorer instead of the trained one", "trained", "max"),
        ("index dim 16 against 64", "not printed", "dim_16"),
        ("index dim 128 against 64", "not printed", "dim_128"),
    )
    return (
        Comparison("block size 32 / 64 / 128: quality", "66.1 / 65.3 / 64.6", f"{paper}, RULER-32K",
                   f"answers right: {_sizes(base, rows, 'answers')}", blocks + _SMALL),
        Comparison("block size 32 / 64 / 128: text", "1.176 / 1.176 / 1.176",
                   f"{paper}, perplexity on agent traces (TAU2)",
                   f"nats per byte: {_sizes(base, rows, 'text_nll')}",
                   "Another unit: nats per byte. " + blocks + _SMALL),
        Comparison("forced sink and window, with / without", "65.8 / 61.5", f"{paper}, RULER-32K",
                   f"with less without: {_both(rows.get('sink_window'))}",
                   "Two more forced blocks leave one of four slots to choose. " + _SMALL),
        Comparison("no detach: steps above 10 times the base's median norm",
                   "spikes, and divergence at larger lambda", paper, _spikes(gradients),
                   "Clipping bounds what a spike can do, and the run is short. " + _SMALL),
        *(Comparison(what, published, f"{paper}, {_SILENT}", _both(rows.get(name)), _SMALL)
          for what, published, name in plain),
    )  # fmt: skip


def _table(
    title: str, against: Row, rows: Mapping[str, Row], group: str, *, shut: bool = True
) -> Table:
    columns = ["", *(cell for name in MEASURES.values() for cell in (name, "difference"))]
    cells = [cell for name in MEASURES for cell in (against.value(name), "")]
    lines = [("what they are compared with", *cells)]
    for row in rows.values():
        if row.group == group:
            cells = [cell for name in MEASURES for cell in (row.value(name), row.difference(name))]
            lines.append((label(row.name), *cells))
    return Table(f"{title} (mean and range over seeds)", tuple(columns), lines, shut=shut)


def _gradients(gradients: Sequence[Gradients]) -> Table:
    rows = [
        (
            label(one.name),
            f"{run.seed}",
            shown(run.median),
            shown(run.largest),
            share(run.spikes),
            f"{run.not_finite}",
            "no" if run.diverged is None else f"at step {run.diverged}",
        )
        for one in gradients
        for run in one.seeds
    ]
    columns = ("", "seed", "median norm", "largest", "above 10 times the base's median",
               "steps not finite", "diverged")  # fmt: skip
    return Table("Gradients of the model before clipping", columns, rows)


def _before(start: Object) -> Table:
    rows = []
    for name in start:
        one = part(start, name)
        kept = shown(number(one, "mass")) if "mass" in one else "n/a"
        text = shown(number(one, "text_nll"))
        rows.append((label(name), text, str(estimate(one, "answers")), kept))
    columns = ("", MEASURES["text_nll"], MEASURES["answers"], MEASURES["mass"])
    return Table("The dense model before any of it", columns, rows)


#: Measures whose differences are told.
_TOLD = ("text_nll", "answers", "mass")


def _meaning(rows: Mapping[str, Row], seeds: int) -> str:
    """What differs, by measure; the rest is said not to."""
    trained = [row for row in rows.values() if row.group == "training"]
    if any(one.says == TOO_FEW for row in trained for one in row.differences.values()):
        return f"With {plural(seeds, 'seed')} nothing can be said of differences."
    said = []
    for measure in _TOLD:
        found = [
            f"{markdown(label(row.name))} ({row.differences[measure].text(sign=True)})"
            for row in trained
            if measure in row.differences and row.differences[measure].says == DIFFERS
        ]
        said.append(f"{MEASURES[measure]}: {', '.join(found) if found else 'nothing'}")
    asked = sum(measure in row.differences for row in trained for measure in _TOLD)
    return (
        "Of what was trained otherwise, these differ from the base in each of "
        f"{plural(seeds, 'seed')}: {'; '.join(said)}. Chance alone makes {plural(seeds, 'seed')} "
        f"agree {2.0 ** (1 - seeds):.0%} of the time, about {asked * 2.0 ** (1 - seeds):.0f} of "
        f"these {asked} differences, so a small one is no finding. For everything else no "
        "difference was seen at this size, which does not mean that there is none at yours."
    )
