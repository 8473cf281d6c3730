"""Wall clock of a prefill against dense attention, and where the two cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from msa_reports import svg
from msa_reports.documents import Object, count, get, objects, optional_number, within
from msa_reports.reproduction import sources
from msa_reports.reproduction.cost import length_label
from msa_reports.reproduction.layout import Comparison, Plot, Section, Table
from msa_reports.reproduction.reading import Estimate, estimate, part
from msa_reports.scale import Axis
from msa_reports.text import number, seconds

_OVERLAPS = ("low", "high")


@dataclass(frozen=True, slots=True)
class Timed:
    """One length: seconds of every call by name, and dense over MSA by overlap."""

    length: int
    turns: int
    raw: Mapping[str, tuple[float, ...]]
    ratio: Mapping[str, Estimate]


def _timed(row: Object) -> Timed:
    calls = part(row, "seconds")
    return Timed(
        length=count(row, "length"),
        turns=count(row, "turns"),
        raw={name: _seconds(calls, name) for name in ("dense", *_OVERLAPS)},
        ratio={name: within("ratio", estimate, part(row, "ratio"), name) for name in _OVERLAPS},
    )


def _seconds(calls: Object, name: str) -> tuple[float, ...]:
    values = get(calls, name, list)
    if not values or not all(isinstance(v, float | int) and v > 0 for v in values):
        raise ValueError(f"seconds.{name}: wanted seconds above 0, got {values!r:.80}")
    return tuple(map(float, values))


def render(result: Object) -> Section:
    """The section on the clock."""
    rows = [_timed(row) for row in objects(result, "rows")]
    shape, crossover = part(result, "shape"), part(result, "crossover")
    crossed = {name: optional_number(crossover, name) for name in _OVERLAPS}
    by_length = {row.length: row for row in rows}
    heads = f"Hq {shape.get('Hq')}, Hkv {shape.get('Hkv')}, D {shape.get('D')}"
    said = "; ".join(
        f"{name} overlap: {_crossing(name, crossed[name], rows)}" for name in _OVERLAPS
    )
    compared = [
        Comparison("prefill against dense", "14.2 times faster", f"{sources.PAPER}, 1M tokens, "
                   "H800, its own kernel", _ratios(rows[-1]) + f" at {rows[-1].length:,} tokens",
                   "Another device, plain PyTorch, and far shorter."),
    ]  # fmt: skip
    compared += [
        Comparison(f"gather in plain PyTorch, {length_label(length)}", f"{slower} times slower",
                   f"{sources.RETROFIT}, 4090, 16/2 heads, D 128",
                   _ratios(by_length[length]) if length in by_length else "not measured",
                   "Theirs is against a fused kernel on a GPU, with a Python loop over tiles; ours "
                   "is against the same library's products on the same device, batched.")
        for length, slower in ((2048, "35"), (8192, "12"), (32768, "3.5"))
    ]  # fmt: skip
    compared.append(
        Comparison("crossover", "past where a 4090 can reach", f"{sources.RETROFIT}, expected",
                   said,
                   "Interpolated between two lengths, on logarithmic axes.")
    )  # fmt: skip
    columns = ("tokens", "turns", "dense", "MSA, low", "MSA, high", "ratio, low", "ratio, high")
    cells = [
        (
            f"{row.length:,}",
            f"{row.turns}",
            *(seconds(median(row.raw[name])) for name in ("dense", *_OVERLAPS)),
            *(str(row.ratio[name]) for name in _OVERLAPS),
        )
        for row in rows
    ]
    return Section(
        title="The wall clock",
        claim=f"With the paper's kernel a prefill of a million tokens is 14.2 times faster on H800 "
        f"({sources.PAPER}). Without it fewer operations are slower: 35, 12 and 3.5 times at 2K, "
        f"8K and 32K on a 4090 ({sources.RETROFIT}).",
        method=f"Whole prefill of one sequence (index scores, top-k, attention) by the `torch` "
        f"implementation against causal dense attention (SDPA), float32, {heads}, blocks of 128, "
        "k 16. The three calls of a turn are neighbours, in alternating order; the ratio is the "
        "geometric mean over turns, trimmed, of dense over MSA: above 1 MSA is faster. Low "
        "overlap: every query chooses for itself; high: neighbours choose alike. Each prefill was "
        "right on sampled rows before it was timed. The data file has the seconds of every call.",
        comparisons=tuple(compared),
        plots=(_plot(rows, crossed),),
        tables=(Table("The numbers (seconds are medians; ratios with 95 % intervals)", columns,
                      cells),),
        meaning=f"Where it pays on this machine: {said}. Where it is slower, switch it off.",
    )  # fmt: skip


def _crossing(overlap: str, tokens: float | None, rows: Sequence[Timed]) -> str:
    if tokens is not None:
        return f"from {tokens:,.0f} tokens on"
    ratios = [row.ratio[overlap].value for row in rows]
    if min(ratios) > 1:
        return f"at every length measured, from {rows[0].length:,} tokens on"
    return "not for good within the lengths measured"


def _ratios(row: Timed) -> str:
    parts = []
    for name in _OVERLAPS:
        value = row.ratio[name].value
        factor, word = (value, "faster") if value >= 1 else (1 / value, "slower")
        parts.append(f"{number(round(factor, 2))} times {word} ({name} overlap)")
    return ", ".join(parts)


def _plot(rows: Sequence[Timed], crossed: Mapping[str, float | None]) -> Plot:
    ticks = tuple(float(row.length) for row in rows)
    chart = svg.Chart(
        "Prefill: dense seconds over MSA seconds",
        "Ratio by sequence length at low and high overlap; above 1 MSA is faster.",
        Axis("sequence length (tokens, log scale)", base=2, ticks=ticks, show=length_label),
        Axis("dense / MSA", include=(0.0,)),
        tuple(
            svg.Line(f"{name} overlap", tuple((float(r.length), r.ratio[name].value) for r in rows),
                     slot, bounds=tuple((float(r.length), *b) for r in rows
                                        if (b := r.ratio[name].bounds)))
            for slot, name in enumerate(_OVERLAPS)
        ),
        (svg.Rule("as fast as dense", 1.0),),
    )  # fmt: skip
    found = [tokens for tokens in crossed.values() if tokens is not None]
    where = f"They cross from {min(found):,.0f} tokens on." if found else "They do not cross."
    return Plot("clock", chart, f"{where} Bars are 95 % intervals over turns.")
