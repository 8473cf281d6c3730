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

from msa_suites.commands import own_items

PROFILES = ("quick", "standard", "full")
#: Tables of thresholds that `--gates` knows by name.
SHIPPED_GATES = ("acceptance",)


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


def gibibytes(text: str) -> float:
    """An argparse type: GiB above zero, as bytes."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"wanted a number of GiB above 0, got {text!r}")
    return value * (1 << 30)


def gates_file(text: str) -> Path:
    """An argparse type: a file of thresholds, or the name of one that is shipped."""
    import msa_suites

    shipped = Path(msa_suites.__file__).parent / f"{text}.toml"
    return shipped if text in SHIPPED_GATES else Path(text)


def add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        type=gibibytes,
        metavar="GIB",
        default=None,
        help="a worker of the subject that takes more is killed and reported "
        "(default: 45 percent of the memory here)",
    )


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


def add_only(
    parser: argparse.ArgumentParser, flag: str, what: str, *, metavar: str = "NAME"
) -> None:
    """Names that a command keeps to; None where the flag is not given."""
    parser.add_argument(flag, action="append", metavar=metavar, help=f"{what} (repeatable)")


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="PATH",
        default=None,
        help="model directory or hub id of the quality suite (default: the embedded model)",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=positive,
        default=default_threads(),
        metavar="N",
        help="CPU threads of the subject",
    )


def add_timeout(parser: argparse.ArgumentParser, seconds: int) -> None:
    parser.add_argument(
        "--timeout",
        type=positive,
        default=seconds,
        metavar="SECONDS",
        help="a call of the subject that takes longer is killed and counts as failed",
    )


def add_at_once(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--at-once", type=positive, default=default_threads(), metavar="N", help=what
    )


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", default=None, help=what)


def add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--resume", action="store_true", help="go on with the interrupted run in --out"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What ``gate`` and ``check`` share."""
    add_only(parser, "--suite", "only this suite; see `msa-bench list suites`")
    add_profile(parser)
    add_device(parser)
    add_model(parser)
    own_items.add_items(parser)
    parser.add_argument(
        "--cases", type=Path, metavar="FILE", help="own shapes as JSON lines, with weights"
    )
    parser.add_argument(
        "--gates",
        type=gates_file,
        metavar="FILE",
        help="own thresholds (default: base's gates.toml), or `acceptance`: no shape more than 5 "
        "percent slower, their weighted mean not slower",
    )
    add_threads(parser)
    add_timeout(parser, 600)
    add_memory(parser)
    add_out(parser, "run directory (default: runs/<time>-<command>)")
    add_resume(parser)
    add_seed(parser)
    add_json(parser)


def default_threads() -> int:
    """The cores that this process may use, at most 8: more only adds noise."""
    return min(8, len(os.sched_getaffinity(0)))


def settle_out(args: argparse.Namespace, command: str, *, mark: str = "") -> None:
    """Give ``--out`` its default, and see that it is new, or with ``--resume`` that it is not.

    Args:
        args: with ``out`` and ``resume``.
        command: part of the default's name.
        mark: file that shows that a run is there; empty: the directory itself does.

    Raises:
        ValueError: the directory is not what the options want.
        RunError: it cannot be written, or another process is writing there.
    """
    from msa_harness.files import check_writable
    from msa_suites.runner import default_directory

    args.out = args.out or default_directory(command)
    if args.resume and not args.out.exists():
        raise ValueError(f"--resume: wanted an interrupted run in --out, got none at {args.out}")
    check_writable(args.out)
    if not args.resume and (args.out / mark).exists():
        raise ValueError(
            f"--out: a run is at {args.out} already; go on with --resume or name another"
        )
