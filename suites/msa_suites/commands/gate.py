"""``msa-bench gate``: the main job."""

from __future__ import annotations

import argparse
from pathlib import Path

from msa_suites.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    revisions = parser.add_argument_group("two revisions of this repository (the default)")
    revisions.add_argument(
        "--base", metavar="REV", help="revision to compare with (default: merge-base with main)"
    )
    revisions.add_argument(
        "--head", metavar="REV", help="revision or checkout to judge (default: the working tree)"
    )
    revisions.add_argument(
        "--judge",
        choices=("base", "here"),
        default="base",
        help="whose suites and specification decide: base's, so that a change cannot relax its "
        "own gate, or the installed ones",
    )
    revisions.add_argument(
        "--repo", type=Path, metavar="DIR", help="checkout (default: around the current directory)"
    )
    others = parser.add_argument_group("two environments or paths of anybody's implementation")
    others.add_argument("--base-python", metavar="PYTHON", help="interpreter of base")
    others.add_argument("--head-python", metavar="PYTHON", help="interpreter of head")
    others.add_argument("--base-path", metavar="DIR", help="import path of base")
    others.add_argument("--head-path", metavar="DIR", help="import path of head")
    others.add_argument(
        "--may-differ",
        action="append",
        metavar="NAME",
        help="the sides may differ in this where they are timed, because it is what is compared "
        "(repeatable): python, torch, triton, numpy, threads",
    )
    parser.add_argument("--judged-by", default="", help=argparse.SUPPRESS)
    options.add_implementation(parser)
    options.add_run_options(parser)
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="for `git bisect run`: exit 125, which skips the commit, where the verdict is no "
        "answer or there is none; 130, which ends the search, on Ctrl-C or an unknown option",
    )


def run(args: argparse.Namespace) -> int:
    from msa_suites import SUITES
    from msa_suites.plan import hand_over, plan_gate
    from msa_suites.running import run_plan
    from msa_suites.versions import SOFTWARE

    options.pick("--suite", args.suite or (), SUITES)
    options.pick("--may-differ", args.may_differ or (), SOFTWARE)
    options.settle_out(args, "gate", mark="run.json")
    hand_over(args, args.argv)
    plan = plan_gate(args, args.out / "subjects")
    return run_plan("gate", args, plan, args.argv).exit_code
