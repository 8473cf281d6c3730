"""``msa-bench gpu``: the whole pass on a GPU; of the extras it needs triton alone."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa_suites.commands import options

if TYPE_CHECKING:
    from msa_suites.gpu.timing import Clock

PARTS = ("conformance", "races", "speed", "sanitizer")

#: Seconds of each tool of compute-sanitizer.
_SANITIZED = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_implementation(parser, "triton")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="where it runs; cpu tries it out"
    )
    parser.add_argument(
        "--lengths", type=options.positive, nargs="+", metavar="N", help="tokens (4096 to 1048576)"
    )
    options.add_only(parser, "--part", f"only this part: {', '.join(PARTS)}")
    options.add_profile(parser)
    parser.add_argument(
        "--seconds",
        type=options.positive,
        default=480,
        help="no row begins later than this after the start",
    )
    options.add_out(parser, "directory of gpu.json and gpu.md (default: runs/<time>-gpu)")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    import torch

    import msa_kernels
    from msa_harness.client import WorkerError
    from msa_harness.files import check_writable
    from msa_harness.records import write_atomic
    from msa_suites import runner
    from msa_suites.gpu.page import markdown
    from msa_suites.gpu.shapes import BLOCK
    from msa_suites.gpu.timing import Clock

    began = time.monotonic()
    if wrong := [length for length in args.lengths or () if length % BLOCK]:
        raise ValueError(f"--lengths: wanted multiples of {BLOCK}, got {wrong[0]}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device: wanted a CUDA device, got none; --device cpu tries the pass out"
        )
    parts = options.pick("--part", args.part or PARTS, PARTS)
    args.out = args.out or runner.default_directory("gpu")
    check_writable(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    implementation = msa_kernels.load(args.implementation)
    clock = Clock(args.device)
    document: dict[str, Any] = {
        "implementation": args.implementation,
        "ran": _ran(implementation),
        "command": shlex.join(["msa-bench", *args.argv]),
        **_place(args.device),
        "ceilings": clock.ceilings(),
        "conformance": {"problem": "not asked for"},
        "races": [],
        "sanitizer": [],
        "rows": [],
    }

    def keep() -> None:
        text = json.dumps(document, indent=1, default=str) + "\n"
        write_atomic(args.out / "gpu.json", text)
        write_atomic(args.out / "gpu.md", markdown(document))

    keep()
    # Conformance compiles every kernel for every shape of a case: last, for it may take longest.
    with runner.progress("gpu", options.stderr_console()) as say:
        if "races" in parts:
            say("repeated bits")
            document["races"] = _races(args, implementation, clock)
            keep()
        if "speed" in parts:
            for row in _speed(args, implementation, clock, until=began + args.seconds, say=say):
                document["rows"].append(row)
                keep()
        if "conformance" in parts:
            say("conformance")
            try:
                document["conformance"] = _conformance(args, say)
            except WorkerError as error:
                document["conformance"] = {"problem": str(error)}
            keep()
        if "sanitizer" in parts:
            from msa_suites.gpu.sanitizing import sanitized

            say("compute-sanitizer")
            for row in sanitized(args.implementation, seconds=_SANITIZED):
                document["sanitizer"].append(row)
                keep()
    if args.json:
        options.print_json(document)
    else:
        print(markdown(document))
        print(f"results: {Path(args.out) / 'gpu.json'}")
    return 1 if _failed(document, parts) else 0


def _ran(implementation: Any) -> str:  # noqa: ANN401
    import msa_kernels
    from msa_harness.attestation import ran

    found = msa_kernels.identity(implementation).as_dict()
    return ran(str(found["name"]), {n: str(found.get(n) or "") for n in ("version", "sha256")})


def _place(device: str) -> dict[str, Any]:
    """The machine and the commit, for the record."""
    import torch

    from msa_harness.environment import capture
    from msa_harness.subjects import SubjectError, is_dirty, resolve_revision
    from msa_suites.plan import here

    commit, dirty = "unknown", False
    if (here() / ".git").exists():
        with contextlib.suppress(SubjectError):
            commit, dirty = resolve_revision(here(), "HEAD"), is_dirty(here())
    found = capture(threads=1, device=device, commit=commit, dirty=dirty)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit + (", uncommitted changes" if dirty else ""),
        "device": {
            "name": torch.cuda.get_device_name() if device == "cuda" else found.cpu_model,
            "driver": found.gpu.get("driver", ""),
            "platform": found.platform,
            "python": found.python,
            "torch": found.packages.get("torch", ""),
            "triton": found.packages.get("triton", ""),
        },
    }


def _conformance(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from msa_suites.correctness.run import to_document
    from msa_suites.correctness.suite import check_side
    from msa_suites.plan import plan_conformance
    from msa_suites.repeating import repeat_check
    from msa_suites.session import Session

    args.python = args.path = args.cases = None
    plan = plan_conformance(args)
    session = Session(
        sides=plan.sides,
        profile=args.profile,
        device=args.device,
        judge_paths=plan.judge_paths,
        say=say,
    )
    results = list(check_side(session, "head"))
    again = partial(repeat_check, args)
    document = to_document(results, implementation=args.implementation, repeat=again)
    return {name: document[name] for name in ("passed", "failed", "skipped", "failures")}


def _races(
    args: argparse.Namespace,
    implementation: Any,  # noqa: ANN401
    clock: Clock,
) -> list[dict[str, Any]]:
    from msa_suites.gpu.running import repeated_bits, replayed
    from msa_suites.gpu.shapes import Timed

    length = min(args.lengths or [4096])
    dtype = _dtype(args.device)
    table = [Timed(what, length, batch=1, dtype=dtype) for what in ("prefill", "scores", "topk")]
    table.append(Timed("decode", length, batch=4, dtype=dtype))
    found = list(repeated_bits(table, implementation, args.device))
    if args.device == "cuda" and hasattr(implementation, "attend_paged"):
        found.append(replayed(table[-1], implementation, clock))
    return found


def _speed(
    args: argparse.Namespace,
    implementation: Any,  # noqa: ANN401
    clock: Clock,
    *,
    until: float,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    import torch

    from msa_suites.gpu.running import speed_rows
    from msa_suites.gpu.shapes import LENGTHS, table

    memory = 8 << 30
    if args.device == "cuda":
        torch.cuda.empty_cache()
        memory = torch.cuda.mem_get_info()[0]
    dtype = _dtype(args.device)
    timed = (replace(row, dtype=dtype) for row in table(args.lengths or LENGTHS))
    return speed_rows(timed, implementation, clock, memory=int(0.9 * memory), until=until, say=say)


def _dtype(device: str) -> str:
    return "bfloat16" if device == "cuda" else "float32"


def _failed(document: dict[str, Any], parts: Sequence[str]) -> bool:
    """Whether something is wrong, or a part that was asked for showed nothing."""
    found, rows = document["conformance"], document["rows"]
    unmeasured = "not measured"
    problems = [row["problem"] for row in (*document["races"], *document["sanitizer"], *rows)]
    return (
        any(problem and not problem.startswith(unmeasured) for problem in problems)
        or ("conformance" in parts and (bool(found.get("failed")) or not found.get("passed")))
        or ("speed" in parts and not any(row.get("seconds") for row in rows))
    )
