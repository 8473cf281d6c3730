"""``msa-bench report``: page, comment and plots of a run; or what is known of the gate itself."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from msa_suites.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_directory",
        type=Path,
        metavar="RUN",
        help="run directory; or one with faults.json, calibration.json or mutants.jsonl, for the "
        "page that says what a PASS is worth; those of a run directory stand on its page",
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_harness.records import HEADER
    from msa_reports.evidence import has_evidence
    from msa_reports.gate_report import write_gate_report
    from msa_reports.report import VERDICT, read_outcome, read_speedups, write_report
    from msa_reports.terminal import print_outcome, print_speedups

    if has_evidence(args.run_directory) and not (args.run_directory / HEADER).exists():
        paths, outcome = write_gate_report(args.run_directory), None
    else:
        paths = write_report(args.run_directory)
        outcome = read_outcome(args.run_directory / VERDICT)
    if args.json:
        options.print_json({"html": str(paths.html), "markdown": str(paths.markdown)})
        return 0
    if outcome is not None:
        print_outcome(outcome, stream=sys.stdout)
        print_speedups(read_speedups(args.run_directory), stream=sys.stdout)
    print(f"page: {paths.html}\ncomment: {paths.markdown}")
    return 0
