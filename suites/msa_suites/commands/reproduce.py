"""``msa-bench reproduce``: the experiments of the documents about MSA, on one's own machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from msa_suites.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder of data and plots; the document is written beside it, as DIR.md",
    )
    options.add_only(parser, "--only", "only this section", metavar="SECTION")
    options.add_model(parser)
    parser.add_argument(
        "--resume", action="store_true", help="measure only what --out does not have yet"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to try the command; reproduces nothing"
    )
    options.add_device(parser)
    options.add_threads(parser)
    options.add_seed(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    import torch

    from msa_harness.files import alone, check_writable
    from msa_reports.reproduction import write_reproduction
    from msa_suites.models.placing import find_device
    from msa_suites.reproduction import SECTIONS
    from msa_suites.reproduction.running import measure
    from msa_suites.reproduction.setup import Setup, load
    from msa_suites.runner import progress

    chosen = options.pick("--only", args.only or SECTIONS, SECTIONS)
    find_device(args.device, argument="--device")
    check_writable(args.out)
    torch.set_num_threads(args.threads)
    failed = []
    with progress("reproduce", options.stderr_console()) as say:
        setup = Setup(
            out=args.out.resolve(),
            model=args.model or "",
            seed=args.seed,
            device=args.device,
            quick=args.quick,
            say=say,
        )
        if args.model is not None:
            load(setup)  # a model that is not there is a bad argument, not a section's trouble
        with alone(args.out):
            for outcome in measure(setup, chosen, resume=args.resume):
                say(f"{outcome.section}: {outcome.why_not or 'measured'}")
                if outcome.failed:
                    failed.append(outcome)
            document = write_reproduction(args.out)
    if args.json:
        state = {one.section: one.why_not for one in failed}
        options.print_json({"document": str(document), "failed": state})
    else:
        print(f"document: {document}")
    return 2 if failed else 0
