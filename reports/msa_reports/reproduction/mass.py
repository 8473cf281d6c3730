"""Attention mass that the selected blocks hold, in two regimes and on text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msa_reports import svg
from msa_reports.documents import Object, count, get, objects, positive
from msa_reports.reproduction import sources
from msa_reports.reproduction.layout import Comparison, Plot, Section, Table
from msa_reports.reproduction.reading import Estimate, estimate, part
from msa_reports.scale import Axis
from msa_reports.text import share

_NAMES = {"concentrated": "concentrated", "white_noise": "white noise"}
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


#: The document's budgets, and the share that it has at the first.
_K, _MORE, _PUBLISHED = 16, 32, 0.925


@dataclass(frozen=True, slots=True)
class _Sharp:
    """Mass kept by budget, with the queries times ``factor``."""

    factor: float
    kept: Mapping[int, Estimate]

    @classmethod
    def read(cls, row: Object) -> _Sharp:
        kept = {count(one, "topk"): estimate(one, "mass") for one in objects(row, "rows")}
        if _K not in kept:
            raise ValueError(f"rows: wanted k {_K}, got {sorted(kept)}")
        return cls(positive(row, "factor"), kept)


def _shown(found: Estimate | None) -> str:
    if found is None:
        return "not measured"
    text = share(found.value)
    if found.bounds is not None:
        text += f" ({share(found.bounds[0])} to {share(found.bounds[1])}, n {found.n})"
    return text


def render(result: Object) -> Section:
    """The section on mass."""
    rows = objects(result, "random")
    text_rows = objects(part(result, "text"), "rows")
    length, dim = count(rows[0], "length"), count(rows[0], "dim")
    main = [row for row in rows if (count(row, "length"), count(row, "dim")) == (length, dim)]

    def at(regime: str, topk: int, name: str) -> Estimate | None:
        for row in main:
            if (row.get("regime"), row.get("topk")) == (regime, topk):
                return estimate(row, name)
        return None

    setting = "“concentrated attention”; length, head dim and seeds not stated"
    why = "How concentrated is theirs to choose: a sharper draw gives any share up to 1."
    compared = [
        Comparison(f"mass kept at k {k}, concentrated", published, f"{sources.CPU}, {setting}",
                   _shown(at("concentrated", k, "mass")), why)
        for k, published in ((16, "92.5%"), (32, "99.1%"))
    ]  # fmt: skip
    compared += [
        Comparison("white noise at k 16", "beats uniform, error stays high", sources.CPU,
                   f"selector {_shown(at('white_noise', 16, 'mass'))}, uniform "
                   f"{_shown(at('white_noise', 16, 'uniform'))}; error of the output "
                   f"{_shown(at('white_noise', 16, 'error'))}", "No figures are published."),
        Comparison("uniform choice at k 16, concentrated", "none", "",
                   _shown(at("concentrated", 16, "uniform")), "Our control."),
    ]  # fmt: skip
    sharp = [_Sharp.read(row) for row in objects(result, "sharpness")]
    fit = min(sharp, key=lambda one: abs(one.kept[_K].value - _PUBLISHED), default=None)
    if fit is not None and _MORE in fit.kept:
        compared.insert(
            2,
            Comparison(
                f"mass kept at k {_MORE}, where k {_K} keeps about what they publish",
                "99.1%",
                sources.CPU,
                f"{_shown(fit.kept[_MORE])}, with {_shown(fit.kept[_K])} at k {_K}",
                f"Our queries times {fit.factor:g}: nearest to theirs of the factors tried.",
            ),
        )
    cells = [
        (_NAMES.get(get(row, "regime", str), ""), f"{count(row, 'length'):,}",
         f"{count(row, 'dim')}", f"{count(row, 'topk')}",
         *(_shown(estimate(row, name)) for name in ("mass", "uniform", "error")))
        for row in rows
    ]  # fmt: skip
    texts = [(f"{count(row, 'topk')}", _shown(estimate(row, "mass"))) for row in text_rows]
    columns = ("regime", "tokens", "head dim", "k", "selector", "uniform", "error of the output")
    return Section(
        title="How much attention the selected blocks hold",
        claim=f"On concentrated attention 16 blocks keep 92.5 % of the true mass and 32 keep "
        f"99.1 %; on white noise the selector beats a uniform choice and the error stays high "
        f"({sources.CPU}).",
        method=f"Queries at the end of a context of {length:,} tokens, head dim {dim}, blocks of "
        "128, the local block forced; each seed is one drawing. The error is relative L2 against "
        "dense attention. Below, other lengths and another head dim, and the share on held-out "
        "text in the model (blocks of 32, layers and groups averaged).",
        comparisons=tuple(compared),
        plots=(_plot(main, text_rows),),
        tables=(
            Table("The numbers, random tensors", columns, cells),
            Table(
                "Sharper and duller: the concentrated regime with its queries times a factor",
                ("factor", f"k {_K}", f"k {_MORE}"),
                [
                    (f"{one.factor:g}", _shown(one.kept.get(_K)), _shown(one.kept.get(_MORE)))
                    for one in sharp
                ],
            ),
            Table("Held-out text, local block forced", ("k", "mass kept"), texts),
        ),
        meaning="The share says how sharp attention is as much as how good the selector is: state "
        "the distribution with the figure, and measure it on your own model's attention.",
    )


def _plot(rows: Sequence[Object], texts: Sequence[Object]) -> Plot:
    budgets = sorted({count(row, "topk") for row in [*rows, *texts]})
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    for row in rows:
        name = _NAMES.get(get(row, "regime", str), "")
        for what, label in (("mass", "selector"), ("uniform", "uniform")):
            lines.setdefault(f"{name}, {label}", []).append(
                (float(count(row, "topk")), estimate(row, what))
            )
    lines["held-out text, selector"] = [
        (float(count(row, "topk")), estimate(row, "mass")) for row in texts
    ]
    chart = svg.Chart(
        "Attention mass kept against k",
        "Share of the true attention mass in the selected blocks, by regime and selector.",
        Axis("k (blocks, log scale)", base=2, ticks=tuple(map(float, budgets))),
        Axis("share of the mass", include=(0.0, 1.0), ticks=_SHARES),
        tuple(
            svg.Line(name, tuple((k, one.value) for k, one in points), slot,
                     bounds=tuple((k, *one.bounds) for k, one in points if one.bounds))
            for slot, (name, points) in enumerate(lines.items())
        ),
    )  # fmt: skip
    return Plot("mass", chart, "Bars are 95 % intervals over drawings or texts.")
