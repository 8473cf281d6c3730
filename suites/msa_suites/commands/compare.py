"""``msa-bench compare``: the verdict from two recorded runs."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from msa_suites.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", type=Path, metavar="RUN_A", help="run directory of base")
    parser.add_argument("head", type=Path, metavar="RUN_B", help="run directory of head")
    parser.add_argument(
        "--gates", type=Path, metavar="FILE", help="thresholds (default: those RUN_A recorded)"
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from msa_harness.environment import incomparable
    from msa_harness.gates import judging_day, parse_gates, table_from_dict
    from msa_harness.judge import judge
    from msa_harness.records import RunStore, Sample
    from msa_reports.report import VERDICT
    from msa_reports.terminal import print_outcome

    stores = {"base": RunStore.open(args.base), "head": RunStore.open(args.head)}
    for name, folder in (("RUN_A", args.base), ("RUN_B", args.head)):
        if not (folder / VERDICT).exists():
            raise ValueError(f"{name}: wanted a finished run, got {folder} without {VERDICT}")
    headers = {label: store.header for label, store in stores.items()}
    asked = {
        label: {"profile": one.profile, "seed": one.seed, "model": one.judge.get("model")}
        for label, one in headers.items()
    }
    for name, first in asked["base"].items():
        if (second := asked["head"][name]) != first:
            raise ValueError(f"RUN_B: wanted a run with {name} {first!r} as RUN_A, got {second!r}")
    # What a run says of its own head is compared: a gate run holds two subjects, a check one.
    samples: list[Sample] = [
        dataclasses.replace(sample, subject=label)
        for label, store in stores.items()
        for sample in store.samples()
        if sample.subject == "head"
    ]
    gates = (
        parse_gates(args.gates.read_text(), profile=headers["base"].profile)
        if args.gates
        else table_from_dict(headers["base"].gates)
    )
    differs = incomparable(headers["base"].environment, headers["head"].environment)
    notes = []
    if differs:
        notes.append("clock times are left out, the machines differ: " + "; ".join(differs))
        samples = [sample for sample in samples if sample.suite != "speed"]
    today = judging_day(*(header.created for header in headers.values()))
    outcome = judge(samples, gates, today, mode="unpaired")
    outcome = dataclasses.replace(outcome, notes=(*outcome.notes, *notes))
    if args.json:
        options.print_json(outcome.to_json(headers["head"].environment))
    else:
        print_outcome(outcome, stream=sys.stdout)
    return outcome.exit_code
