"""``msa-bench``: the command line of the suite.

Results go to stdout (``--json``: one JSON document and nothing else), progress and messages to
stderr. Exit codes: PASS 0, REGRESSION 1, usage or infrastructure error 2, INCONCLUSIVE 3,
INVALID 4.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Protocol, cast

from msa_reports.text import log_safe

#: Name of a command -> what it does. The module of a command has the command's name.
COMMANDS: dict[str, str] = {
    "gate": "measure base and head, paired, and say PASS or REGRESSION (the main job)",
    "check": "measure one working tree against fixed requirements",
    "compare": "verdict from two recorded runs",
    "conformance": "the correctness suite on one implementation",
    "cost": "what MSA costs on paper: equation 12, exact counts, bytes",
    "items": "RULER's tasks and plain text for a model's tokenizer, kept for its runs",
    "reproduce": "the experiments of the documents about MSA, as one document with plots",
    "sweep": "perplexity and recall against budget and scorer",
    "faults": "put known faults into the code and show which gate catches each",
    "mutants": "change the method's code automatically and show what the gate kills",
    "calibrate": "false alarms and detectable effects of the gate on this machine",
    "aot": "compile every kernel without a GPU and say what the compiler made of it",
    "gpu": "the whole pass on a GPU: conformance, repeated bits, speed to 1M tokens",
    "train": "train the embedded model",
    "report": "page, comment and plots of a run",
    "publish": "runs into the history over commits, and its site",
    "comment": "say on a pull request what its gates said; for its workflow",
    "list": "what there is, and why something cannot run here",
}

ERROR_EXIT = 2
#: To `git bisect run` any other code but 0 is a bad commit: these skip it, and end the search.
BISECT_SKIP, BISECT_STOP = 125, 130


class _Version(argparse.Action):
    """Imports the method when it is asked for: it takes a second."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from msa import __version__

        print(f"msa-bench {__version__}")
        parser.exit()


class Command(Protocol):
    """A module in ``msa_suites.commands``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the result is the exit code."""


def _load(name: str) -> Command:
    return cast(Command, importlib.import_module(f"msa_suites.commands.{name}"))


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; with ``only``, the options of that command alone are loaded."""
    parser = argparse.ArgumentParser(
        prog="msa-bench",
        description="Is this change to an MSA implementation still right, still good, still fast?",
        epilog="exit codes: PASS 0, REGRESSION 1, error 2, INCONCLUSIVE 3, INVALID 4",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error (before the command)"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        if only in (None, name):
            _load(name).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no bad input ends in a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((a for a in arguments if a in COMMANDS), "")
    bisecting = named == "gate" and "--bisect" in arguments
    try:
        args = build_parser(only=named or "list").parse_args(arguments)
    except SystemExit as stop:
        if bisecting and stop.code:
            return BISECT_STOP
        raise
    args.argv = arguments
    try:
        code = _run(args)
    except SystemExit as stop:  # of the base's judge, which was handed the gate
        code = stop.code if isinstance(stop.code, int) else ERROR_EXIT
    except KeyboardInterrupt:
        print(
            f"msa-bench {args.command}: interrupted; what was measured is kept, "
            "and commands with --resume go on from it",
            file=sys.stderr,
        )
        return BISECT_STOP if bisecting else ERROR_EXIT
    return BISECT_SKIP if bisecting and code not in (0, 1) else code


def _run(args: argparse.Namespace) -> int:
    try:
        return _load(args.command).run(args)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, nobody listens.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR_EXIT
    except (ValueError, TypeError, LookupError, OSError, RuntimeError, ImportError) as error:
        if args.debug:
            traceback.print_exc()
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(log_safe(f"msa-bench {args.command}: error: {text}"), file=sys.stderr)
        return ERROR_EXIT
    except Exception as error:  # noqa: BLE001 - a fault of ours: never the exit code of a verdict
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        text = f"msa-bench {args.command}: internal error, no verdict: {what}"
        print(log_safe(text), file=sys.stderr)
        return ERROR_EXIT
