"""``msa-bench list``: what there is, and why something cannot run here."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from msa_suites.case import Case
from msa_suites.commands import options

Rows = list[dict[str, str]]


def _implementations() -> Rows:
    import msa_kernels

    return [
        {
            "name": row.name,
            "what": f"{row.where}: {', '.join(row.operations)}" if row.operations else row.where,
            "unavailable": row.unavailable,
        }
        for row in msa_kernels.describe()
    ]


def _scorers() -> Rows:
    from msa.scorers import SCORERS

    return [{"name": name, "what": _summary(scorer)} for name, scorer in SCORERS.items()]


def _relatives() -> Rows:
    from msa_suites.quality.relatives import RULES

    return [
        {
            "name": rule.name,
            "what": f"{rule.source}; {rule.pieces}. Faithful: {rule.faithful} "
            f"Stand-in: {rule.stand_in}",
        }
        for rule in RULES.values()
    ]


def _suites() -> Rows:
    import importlib

    from msa_suites import SUITES

    return [
        {"name": name, "what": _summary(importlib.import_module(module))}
        for name, module in SUITES.items()
    ]


def _tasks() -> Rows:
    from msa_suites.quality.items import TASKS, load_items
    from msa_suites.ruler.making import ALL_TASKS

    own = {task: f"{len(load_items(task))} items in the quick profile" for task in TASKS}
    others = dict.fromkeys(ALL_TASKS, "for a model of one's own: made by `msa-bench items`")
    return [{"name": task, "what": what} for task, what in {**own, **others}.items()]


def _metrics() -> Rows:
    from msa_harness.gates import parse_gates
    from msa_suites.plan import own_gates

    table = parse_gates(own_gates().read_text())
    return [
        {
            "name": gate.series,
            "what": f"{gate.method}, {gate.direction} is better, "
            f"threshold {gate.threshold:g}, margin {gate.margin:g}",
        }
        for gate in table.gates
    ]


def _checks() -> Rows:
    from msa_suites.correctness.table import CHECKS

    return [{"name": name, "what": _summary(check.function)} for name, check in CHECKS.items()]


def _cases() -> Rows:
    from msa_suites.cases import CASES

    return [
        {
            "name": case.name,
            "what": f"Hq {case.Hq}, Hkv {case.Hkv}, D {case.D}, Di {case.Di}, block {case.block}, "
            f"k {case.topk}, {_dtypes(case)}, keys {list(case.k_lens)}; {', '.join(case.tags)}",
        }
        for case in CASES
    ]


def _dtypes(case: Case) -> str:
    """The dtype, and those of keys and values and of the index branch where they are others."""
    others = {"keys and values": case.kv_dtype, "index": case.index_dtype}
    return ", ".join([case.dtype, *(f"{what} {one}" for what, one in others.items() if one)])


def _faults() -> Rows:
    from msa_suites.faults.table import faults

    return [
        {"name": one.name, "what": f"{one.kind}, by {', '.join(one.gates)}: {one.summary}"}
        for one in faults().values()
    ]


KINDS: dict[str, Callable[[], Rows]] = {
    "implementations": _implementations,
    "scorers": _scorers,
    "relatives": _relatives,
    "suites": _suites,
    "tasks": _tasks,
    "metrics": _metrics,
    "checks": _checks,
    "cases": _cases,
    "faults": _faults,
}


def _summary(thing: object) -> str:
    return (thing.__doc__ or "").strip().split("\n", maxsplit=1)[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind", nargs="*", choices=[*KINDS, []], metavar="KIND", help=", ".join(KINDS)
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    kinds = options.pick("KIND", args.kind or KINDS, KINDS)
    document = {kind: KINDS[kind]() for kind in kinds}
    if args.json:
        options.print_json(document)
        return 0
    for kind, rows in document.items():
        print(kind)
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            why = f"  [not here: {row['unavailable']}]" if row.get("unavailable") else ""
            print(f"  {row['name']:<{width}}  {row['what']}{why}")
    return 0
