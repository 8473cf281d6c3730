"""The shortest command that repeats one check on one case."""

from __future__ import annotations

import argparse
import shlex


def repeat_check(args: argparse.Namespace, check: str, case: str) -> str:
    """``msa-bench conformance`` on head's side of a run, with one check and one case, or "".

    Args:
        args: of ``gate``, ``check`` or ``conformance``.
        check: name in ``CHECKS``.
        case: name of a case of ours, or of the run's own.
    """
    if getattr(args, "head", None):
        return ""  # a revision: what is installed here is other code
    words = ["msa-bench", "conformance", "--implementation", args.implementation]
    for flag, names in (("--python", ("head_python", "python")), ("--path", ("head_path", "path"))):
        value = next((found for name in names if (found := getattr(args, name, None))), None)
        words += [flag, str(value)] if value else []
    words += ["--device", args.device] if args.device != "cpu" else []
    words += ["--cases", str(args.cases)] if args.cases else []
    return shlex.join([*words, "--check", check, "--case", case])
