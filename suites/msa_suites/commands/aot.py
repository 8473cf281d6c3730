"""``msa-bench aot``: every kernel compiled without a GPU, its resources, and what it must be."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from msa_suites.commands import options

if TYPE_CHECKING:
    from msa_suites.aot.builds import Build
    from msa_suites.aot.suite import Compiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from msa_suites.aot.builds import ARCHITECTURES, DEFAULT_ARCHITECTURES, OURS

    parser.add_argument(
        "--implementation",
        metavar="NAME",
        help="a name from `msa-bench list implementations`, or module:object "
        f"(default: {', '.join(OURS)}, each for the architectures that it is written for)",
    )
    parser.add_argument(
        "--arch",
        nargs="+",
        choices=tuple(ARCHITECTURES),
        default=list(DEFAULT_ARCHITECTURES),
        help="architectures to compile for",
    )
    options.add_profile(parser)
    options.add_only(parser, "--build", "only this build of all")
    options.add_only(parser, "--kernel", "only this kernel")
    options.add_timeout(parser, 600)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_suites.aot.builds import OURS

    asked = [args.implementation] if args.implementation else list(OURS)
    rows = [row for name in asked for row in _rows(args, name)]
    if not rows:
        named = ", ".join(args.kernel or ["no launch at all"])
        raise ValueError(f"--kernel: wanted one that is launched, got {named}")
    ran = list(dict.fromkeys(row.ran for row in rows))
    document = {"kernels": [_row(row) for row in rows], "ran": ran}
    if args.json:
        options.print_json(document)
    else:
        _print(rows)
    return 1 if any(row.problem for row in rows) else 0


def _rows(args: argparse.Namespace, implementation: str) -> list[Compiled]:
    """The launches of one implementation, for those of the architectures that it is written for."""
    from msa_suites import runner
    from msa_suites.aot.builds import WRITTEN_FOR, architectures_of
    from msa_suites.aot.suite import compiled
    from msa_suites.plan import plan_conformance
    from msa_suites.session import Session
    from msa_suites.together import merged

    architectures = architectures_of(implementation, tuple(args.arch))
    if not architectures:
        if args.implementation:
            wanted = " or ".join(WRITTEN_FOR[implementation])
            raise ValueError(f"--arch: wanted {wanted} of {implementation}, got {args.arch[0]}")
        return []
    builds = _builds(args, implementation)
    side = argparse.Namespace(implementation=implementation, python=None, path=None)
    plan = plan_conformance(side)
    with runner.progress("aot", options.stderr_console()) as say:
        session = Session(
            sides=plan.sides,
            timeout=args.timeout,
            only=frozenset(args.kernel or ()),
            judge_paths=plan.judge_paths,
            threads=1,
            say=say,
        )
        sources = [partial(compiled, session, "head", arch, builds) for arch in architectures]
        return sorted(merged(sources), key=lambda row: (row.build.name, row.kernel, row.arch))


def _builds(args: argparse.Namespace, implementation: str) -> tuple[Build, ...]:
    from msa_suites.aot.builds import BUILDS, GLUON_BUILDS, builds_of

    mine = builds_of(implementation)
    if not args.build:
        return mine[args.profile]
    known = {one.name: one for table in (BUILDS, GLUON_BUILDS) for one in table["full"]}
    asked = options.pick("--build", args.build, known)
    found = tuple(one for one in mine["full"] if one.name in asked)
    if not found and args.implementation:
        wanted = ", ".join(one.name for one in mine["full"])
        raise ValueError(f"--build: wanted one of {wanted}, got {', '.join(asked)}")
    return found


def _row(row: Compiled) -> dict[str, Any]:
    measured = ("registers", "spill_bytes", "shared_bytes", "tensor_memory", "instructions")
    return {
        "name": row.kernel,
        "arch": row.arch,
        "build": row.build.name,
        "config": {**row.build.as_dict(), **row.found.get("config", {})},
        **{name: row.found.get(name) for name in measured},
        "ok": not row.problem,
        "detail": row.problem,
    }


def _print(rows: list[Compiled]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("kernel", "arch", "build", "registers", "spills", "shared", "tensor", "matrix")
    for row in rows:
        found = row.found
        matrix = [name for name in found.get("instructions", {}) if "mma" in name]
        table.add_row(
            row.kernel,
            row.arch,
            row.build.name,
            *(
                str(found.get(name, ""))
                for name in ("registers", "spill_bytes", "shared_bytes", "tensor_memory")
            ),
            ", ".join(matrix),
        )
    console = Console(highlight=False, width=150)
    console.print(table)
    for row in rows:
        if row.problem:
            console.print(f"FAILED {row.item} {row.arch}: {row.problem}", markup=False)
    good = sum(not row.problem for row in rows)
    for ran in dict.fromkeys(row.ran for row in rows):
        print(ran)
    print(f"{good} of {len(rows)} kernels are as they must be")
