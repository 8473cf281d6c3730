"""``msa-bench comment``: say on a pull request what its gates said.

Loads neither torch nor anything else that is heavy: the job that runs this may write to the
repository, and installs as little as it can.
"""

from __future__ import annotations

import argparse
import re
import sys

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _repository(text: str) -> str:
    if not _REPOSITORY.fullmatch(text):
        raise argparse.ArgumentTypeError(f"wanted owner/name, got {text!r:.80}")
    return text


def _commit(text: str) -> str:
    if not _COMMIT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"wanted 40 hexadecimal digits, got {text!r:.80}")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for flag, what in (
        ("--repository", "where the pull request is"),
        ("--head-repository", "where the commit was pushed to"),
    ):
        parser.add_argument(flag, type=_repository, metavar="OWNER/NAME", required=True, help=what)
    parser.add_argument(
        "--head-sha", type=_commit, metavar="SHA", required=True, help="commit that was judged"
    )


def run(args: argparse.Namespace) -> int:
    from msa_reports.text import log_safe
    from msa_suites import pull_requests
    from msa_suites.github import from_environment

    github = from_environment(args.repository)
    head = pull_requests.Head(args.head_sha, args.head_repository)
    pull = pull_requests.find(github, head)
    if pull is None:
        # Closed, or pushed again while the gate ran; that push has a run of its own.
        print(f"no open pull request has head {head.sha}: nothing is written", file=sys.stderr)
        return 0
    runs = pull_requests.gate_runs(github, head, pull)
    if not runs:
        raise ValueError(f"wanted a run of a gate for {head.sha}, got none: nothing is written")
    pull_requests.say(github, head, pull, runs)
    for each in runs:
        print(log_safe(f"#{pull.number} {each.context}: {each.state}: {each.description}"))
    return 0
