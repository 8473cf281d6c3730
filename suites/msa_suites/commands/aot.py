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
    from msa_suites.aot.builds import ARCHITECTURES, DEFAULT_ARCHITECTURES

    options.add_implementation(parser, "triton")
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
    from msa_suites import runner
    from msa_suites.aot.suite import compiled
    from msa_suites.plan import plan_conformance
    from msa_suites.session import Session
    from msa_suites.together import merged

    args.python = args.path = None
    plan = plan_conformance(args)
    with runner.progress("aot", options.stderr_console()) as say:
        session = Session(
            sides=plan.sides,
            timeout=args.timeout,
            only=frozenset(args.kernel or ()),
            judge_paths=plan.judge_paths,
            threads=1,
            say=say,
        )
        builds = _builds(args)
        sources = [
            partial(compiled, session, "head", arch, builds) for arch in dict.fromkeys(args.arch)
        ]
        rows = sorted(merged(sources), key=lambda row: (row.build.name, row.kernel, row.arch))
    if not rows:
        asked = ", ".join(args.kernel or ["no launch at all"])
        raise ValueError(f"--kernel: wanted one that is launched, got {asked}")
    document = {"kernels": [_row(row) for row in rows], "ran": rows[0].ran}
    if args.json:
        options.print_json(document)
    else:
        _print(rows)
    return 1 if any(row.problem for row in rows) else 0


def _builds(args: argparse.Namespace) -> tuple[Build, ...]:
    from msa_suites.aot.builds import BUILDS

    known = {build.name: build for build in BUILDS["full"]}
    if args.build:
        return tuple(known[name] for name in options.pick("--build", args.build, known))
    return BUILDS[args.profile]


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
    print(f"{rows[0].ran}: {good} of {len(rows)} kernels are as they must be")
