"""Equation 12: the curve, its ceiling and the question of the index dim."""

from __future__ import annotations

from collections.abc import Mapping

from msa_reports import documents, svg
from msa_reports.documents import Object, count, number, objects
from msa_reports.reproduction import sources
from msa_reports.reproduction.layout import Comparison, Plot, Section, Table
from msa_reports.reproduction.reading import part
from msa_reports.scale import Axis
from msa_reports.text import number as shown

_MILLION = 1 << 20
_FLOOR = 1.0


def _rows(document: Object) -> dict[int, Object]:
    return {count(row, "length"): row for row in objects(document, "rows")}


def _at(rows: Mapping[int, Object], length: int, name: str) -> str:
    return shown(round(number(rows[length], name), 3)) if length in rows else "not computed"


def length_label(value: float) -> str:
    """4096 as 4K, 2^20 as 1M."""
    whole = int(value)
    if whole >= _MILLION and whole % _MILLION == 0:
        return f"{whole // _MILLION}M"
    return f"{whole // 1024}K" if whole % 1024 == 0 else f"{whole:,}"


def render(result: Object) -> Section:
    """The section on cost."""
    dims = {count(one, "index_dim"): one for one in objects(result, "index_dims")}
    retrofit, byte = part(result, "retrofit"), part(result, "one_byte_index")
    paper = dims.get(128, next(iter(dims.values())))
    rows, others, ninth = _rows(paper), _rows(retrofit), _rows(byte)
    ceiling = documents.positive(paper, "ceiling")
    even, even_retrofit = (documents.positive(one, "break_even") for one in (paper, retrofit))
    half = _rows(dims[64]) if 64 in dims else {}
    arithmetic = "Arithmetic: they agree where they round alike."
    compared = (
        Comparison("fewer operations at 1M", "28.4", f"{sources.PAPER}, 109B model, Di not printed",
                   _at(rows, _MILLION, "ratio"), "Di 128 gives it. " + arithmetic),
        Comparison("the same with Di 64", "50", f"{sources.RETROFIT}, which guessed",
                   _at(half, _MILLION, "ratio"), "Rounded there."),
        Comparison("ceiling", "32", f"{sources.RETROFIT} and {sources.CPU}", shown(ceiling),
                   "2 Hq D / (Hkv Di), the limit of equation 12."),
        Comparison("at 4K and 64K", "roughly 1, and 10.7", sources.CPU,
                   f"{_at(rows, 4096, 'ratio')} and {_at(rows, 65536, 'ratio')}", arithmetic),
        Comparison("16 query and 2 KV heads, at 2K, 8K, 32K", "0.5, 1.8, 5.3",
                   f"{sources.RETROFIT}, Qwen2.5-3B",
                   ", ".join(_at(others, n, "ratio") for n in (2048, 8192, 32768)), arithmetic),
        Comparison("shortest length worth it", "about 8K tokens", sources.RETROFIT,
                   f"{shown(round(even_retrofit))} with its heads, {shown(round(even))} with the "
                   "109B model's",
                   "Break-even of equation 12; its own table has 1.8 times fewer at 8K already."),
        Comparison("decoding at 1M", "7.6 times faster", f"{sources.PAPER}, H800",
                   f"{_at(rows, _MILLION, 'decode_ratio')} times fewer cache bytes, "
                   f"{_at(ninth, _MILLION, 'decode_ratio')} with one byte an index element",
                   "Bytes bound the speed-up; nothing is timed here."),
    )  # fmt: skip
    return Section(
        title="What it costs on paper",
        claim=f"MSA needs 28.4 times fewer operations a token at a million tokens ({sources.PAPER};"
        f" also {sources.NEWS} and {sources.OVERVIEW}). The ratio has a ceiling of 32, because "
        f"scoring the blocks stays quadratic ({sources.RETROFIT}, {sources.CPU}).",
        method="Equation 12 for the 109B model (64 query and 4 KV heads, D 128, blocks of 128, "
        "k 16) with two index dims, for the heads of the retrofitted 3B model, and beside it the "
        "exact count of causal pairs.",
        comparisons=compared,
        plots=(_plot(dims, retrofit, ceiling),),
        tables=(_table(rows),),
        meaning=f"Below {shown(round(even))} tokens it costs more than dense attention, at 32K it "
        f"is {_at(rows, 32768, 'ratio')} times cheaper, and no length makes it more than "
        f"{shown(ceiling)} times. The ratio is a limit of what a kernel can win, not a speed-up.",
    )


def _plot(dims: Mapping[int, Object], retrofit: Object, ceiling: float) -> Plot:
    named = {f"109B model, Di {dim}": one for dim, one in sorted(dims.items(), reverse=True)}
    named["3B model (16/2 heads)"] = retrofit
    lengths = sorted(n for n in _rows(next(iter(dims.values()))) if n & (n - 1) == 0)
    chart = svg.Chart(
        "Equation 12: operations of dense attention over those of MSA",
        "Ratio by sequence length, for two index dims and the heads of a 3B model.",
        Axis("sequence length (tokens, log scale)", base=2,
             ticks=tuple(map(float, lengths)), show=length_label),
        Axis("dense / MSA", include=(0.0,)),
        tuple(
            svg.Line(name, tuple((float(n), number(row, "ratio"))
                                 for n, row in _rows(one).items()
                    if n & (n - 1) == 0), slot)
            for slot, (name, one) in enumerate(named.items())
        ),
        (svg.Rule(f"ceiling {shown(ceiling)} (Di 128)", ceiling), svg.Rule("", _FLOOR)),
    )  # fmt: skip
    return Plot("cost", chart, "Below the dotted line at 1, MSA does more work than dense.")


def _table(rows: Mapping[int, Object]) -> Table:
    names = ("ratio", "exact_ratio", "index_share", "decode_ratio")
    cells = [
        (
            f"{length:,}",
            *(shown(number(row, name)) for name in names[:2]),
            shown(number(row, "index_flops") / documents.positive(row, "msa_flops")),
            shown(number(row, "decode_ratio")),
        )
        for length, row in sorted(rows.items())
    ]
    columns = ("tokens", "equation 12", "exact causal count", "share of the index branch",
               "decode bytes, dense / MSA")  # fmt: skip
    return Table("The numbers, 109B model with Di 128", columns, cells)
