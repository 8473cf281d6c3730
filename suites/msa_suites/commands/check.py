"""``msa-bench check``: one working tree against fixed requirements."""

from __future__ import annotations

import argparse

from msa_suites.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_implementation(parser)
    options.add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    from msa_suites.plan import plan_alone
    from msa_suites.running import run_plan

    options.settle_out(args, "check", mark="run.json")
    return run_plan("check", args, plan_alone(args), args.argv).exit_code
