"""``msa-bench cost``: what one layer costs on paper, by length."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from msa_suites.commands.options import add_json, positive, print_json

if TYPE_CHECKING:
    from msa_suites.speed.predicting import Prediction

DEFAULT_LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sizes = (
        ("--hq", "q_heads", 64, "query heads"),
        ("--hkv", "kv_heads", 4, "KV heads (groups)"),
        ("--dim", "dim", 128, "head dim D"),
        ("--index-dim", "index_dim", 128, "index dim Di"),
        ("--block", "block", 128, "tokens per block Bk"),
        ("--topk", "topk", 16, "blocks kept k"),
    )
    stored = (
        ("--bytes", "element_bytes", "bytes of a cached element"),
        ("--index-bytes", "index_element_bytes", "bytes of a cached index element: 1 in FP8"),
    )
    for flag, name, default, text in sizes:
        parser.add_argument(flag, dest=name, type=positive, default=default, help=text)
    for flag, name, text in stored:
        parser.add_argument(flag, dest=name, type=float, default=2, help=text)
    parser.add_argument(
        "--lengths",
        type=positive,
        nargs="+",
        default=list(DEFAULT_LENGTHS),
        metavar="N",
        help="sequence lengths in tokens",
    )
    parser.add_argument(
        "--flops-per-second",
        type=float,
        default=None,
        help="rate of a device; with --bytes-per-second, adds the roofline floor in seconds",
    )
    parser.add_argument("--bytes-per-second", type=float, default=None, help="rate of its memory")
    parser.add_argument(
        "--on",
        choices=("B200", "H100"),
        help="also predict the kernels of sm100 (B200) or sm90 (H100): time, and what bounds it",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa.cost import CostShape, prefill_bytes, roofline
    from msa_suites.speed.limits import cost_document

    shape = CostShape(**{name: getattr(args, name) for name in CostShape.__dataclass_fields__})
    rates = (args.flops_per_second, args.bytes_per_second)
    if (rates[0] is None) != (rates[1] is None):
        raise ValueError(
            "--flops-per-second, --bytes-per-second: wanted both or neither, got one of them"
        )
    document = cost_document(shape, args.lengths)
    if rates[0] is not None:
        for row in document["rows"]:
            floor = roofline(
                row["exact_msa_flops"],
                prefill_bytes(shape, row["length"]),
                flops_per_second=rates[0],
                bytes_per_second=rates[1],
            )
            row |= {"floor_seconds": floor.seconds, "floor_bound": floor.bound}
    found: list[Prediction] = []
    if args.on:
        from msa_suites.speed.predicting import DEVICES, predictions

        found = predictions(shape, args.lengths, DEVICES[args.on])
        document["kernels"] = [one.as_dict() for one in found]
    if args.json:
        print_json(document)
        return 0
    _print_table(document)
    if found:
        _print_kernels(found, args.on)
    return 0


def _print_kernels(found: list[Prediction], device: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Floors on {device}, ms: the longest is the prediction")
    for name in ("kernel", "tokens", "predicted", "bound by", *found[0].budget):
        table.add_column(name, justify="left" if name == "kernel" else "right")
    for one in found:
        budget = (f"{1e3 * seconds:.3g}" for seconds in one.budget.values())
        table.add_row(one.kernel, str(one.length), f"{1e3 * one.seconds:.3g}", one.bound, *budget)
    Console(width=130).print(table)


def _print_table(document: dict[str, object]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="One layer of attention, whole prefill (equation 12)")
    columns = {
        "length": "tokens",
        "dense_flops": "dense FLOP",
        "msa_flops": "MSA FLOP",
        "ratio": "ratio",
        "exact_ratio": "exact causal ratio",
        "decode_ratio": "decode bytes ratio",
        "floor_seconds": "floor, s",
        "floor_bound": "bound by",
    }
    rows = document["rows"]
    assert isinstance(rows, list)
    shown = [name for name in columns if name in rows[0]]
    for name in shown:
        table.add_column(columns[name], justify="right")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in shown))
    console = Console()
    console.print(table)
    console.print(
        f"ceiling {document['ceiling']:g}, break-even at {document['break_even']:.0f} tokens"
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3e}" if value >= 1e6 or value < 1e-3 else f"{value:.3f}"
    return str(value)
