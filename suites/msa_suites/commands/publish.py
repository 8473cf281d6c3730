"""``msa-bench publish``: runs into the history of asv, and the site of all that is there."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from msa_suites.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        type=Path,
        nargs="*",
        metavar="RUN",
        help="run directory, or the directory of a GPU pass; none: only build the site",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("asv.conf.json"),
        metavar="FILE",
        help="asv's configuration; its paths are relative to its folder",
    )
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="asv's results, instead of the configured ones"
    )
    parser.add_argument(
        "--html", type=Path, metavar="DIR", help="where the site goes; what is there is replaced"
    )
    parser.add_argument(
        "--machine",
        default="",
        metavar="NAME",
        help="name of the machine in the history (default: its GPU, or processor and cores)",
    )
    parser.add_argument(
        "--commit-url",
        default="",
        metavar="URL",
        help="the address of a commit without its hash, for links",
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    try:
        from asv.console import log

        from msa_reports.history.site import publish
    except ModuleNotFoundError as error:
        if error.name != "asv":
            raise
        raise ImportError(
            "wanted asv, got none installed: python -m pip install 'msa-bench[asv]'"
        ) from error

    with contextlib.redirect_stdout(sys.stderr):
        log.enable()  # asv's progress
    found = publish(
        args.runs,
        args.config,
        results=args.results,
        html=args.html,
        machine=args.machine,
        commit_url=args.commit_url,
    )
    exported = [
        {"run": str(run), "machine": one.machine, "commits": one.commits, "left_out": one.left_out}
        for run, one in zip(args.runs, found.exported, strict=True)
    ]
    if args.json:
        document = {"exported": exported, "html": str(found.html), "overview": str(found.overview)}
        options.print_json(document)
        return 0
    for run, one in zip(args.runs, found.exported, strict=True):
        commits = ", ".join(f"{commit[:8]} ({count})" for commit, count in one.commits.items())
        print(f"{run}: {one.machine}, series of {commits}")
        for line in one.left_out:
            print(f"  left out: {line}")
    print(f"overview: {found.overview}\nasv: {found.html / 'index.html'} (asv preview)")
    return 0
