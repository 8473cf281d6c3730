"""Options and output that commands share."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

PROFILES = ("quick", "standard", "full")


def stderr_console() -> Console:
    """Progress and messages: never on stdout, which belongs to results."""
    return Console(stderr=True)


def print_json(document: object) -> None:
    """One JSON document on stdout. inf and NaN become null: they are not JSON."""
    json.dump(_finite(document), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def _finite(value: object) -> object:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def positive(text: str) -> int:
    """An argparse type: an int above zero."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wanted an int above 0, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted an int above 0, got {value}")
    return value


def pick(kind: str, names: Iterable[str], valid: Iterable[str]) -> list[str]:
    """``names`` if each is valid and none stands twice.

    Raises:
        ValueError: an unknown name (near matches are listed) or a duplicate.
    """
    known, chosen = list(valid), list(names)
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ValueError(f"{kind}: wanted one of {', '.join(known)}, got {name!r}{hint}")
        if chosen.count(name) > 1:
            raise ValueError(
                f"{kind}: wanted each name once, got {name!r} {chosen.count(name)} times"
            )
    return chosen


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else"
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="seed of everything drawn at random")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where the subject runs"
    )


def add_implementation(parser: argparse.ArgumentParser, default: str = "torch") -> None:
    parser.add_argument(
        "--implementation",
        metavar="NAME",
        default=default,
        help="a name from `msa-bench list implementations`, or module:object",
    )


def add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        default="quick",
        help="how much is measured: quick (lengths to 8K), standard, full (32K and more)",
    )


def add_suites(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--suite",
        action="append",
        metavar="NAME",
        help="only this suite (repeatable); see `msa-bench list suites`",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="PATH",
        default=None,
        help="model directory or hub id of the quality suite (default: the embedded model)",
    )


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", default=None, help=what)


def add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume", action="store_true", help="go on with the interrupted run in --out"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What ``gate`` and ``check`` share."""
    add_suites(parser)
    add_profile(parser)
    add_device(parser)
    add_model(parser)
    parser.add_argument(
        "--cases", type=Path, metavar="FILE", help="own shapes as JSON lines, with weights"
    )
    parser.add_argument(
        "--gates", type=Path, metavar="FILE", help="own thresholds (default: base's gates.toml)"
    )
    parser.add_argument(
        "--threads", type=positive, default=default_threads(), help="CPU threads of the subject"
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=600,
        metavar="SECONDS",
        help="a call of the subject that takes longer is killed and reported",
    )
    add_out(parser, "run directory (default: runs/<time>-<command>)")
    add_resume(parser)
    add_seed(parser)
    add_json(parser)


def default_threads() -> int:
    """The cores that this process may use, at most 8: more only adds noise."""
    return min(8, len(os.sched_getaffinity(0)))


def check_out(args: argparse.Namespace) -> None:
    """``--resume`` needs a run, anything else a directory without one.

    Raises:
        ValueError: the directory is not what the options want.
    """
    exists = (args.out / "run.json").exists()
    if args.resume and not args.out.exists():
        raise ValueError(f"--resume: wanted an interrupted run in --out, got none at {args.out}")
    if exists and not args.resume:
        raise ValueError(
            f"--out: a run is at {args.out} already; go on with --resume or name another"
        )
