"""Runs of a gate and what they leave, for the tests of the comment."""

from __future__ import annotations

import json

from fake_github import REPOSITORY, packed

from msa_harness.verdicts import Outcome, SeriesVerdict, Verdict, worst
from msa_reports import markdown
from msa_suites import cli

HEAD, BASE = "a" * 40, "b" * 40
FORK = "someone/msa-bench"


def series(verdict=Verdict.PASS, **more):
    names = {"name": "correctness/scores", "suite": "correctness", "unit": "check"}
    repro = "msa-bench gate --suite correctness"
    return SeriesVerdict(
        **{**names, "direction": "higher", "repro": repro, **more}, verdict=verdict
    )


def document(verdict=Verdict.PASS, **more):
    one = series(verdict, **more)
    return Outcome(worst([one.verdict]), (one,)).to_json()


def archive(content=None, **more):
    content = document() if content is None else content
    text = content if isinstance(content, bytes | str) else json.dumps(content)
    return packed({"verdict.json": text, "report.md": "from the artifact", **more})


def say(head=HEAD, fork=FORK):
    options = ["--repository", REPOSITORY, "--head-sha", head, "--head-repository", fork]
    return cli.main(["comment", *options])


def judged(github, data, conclusion="success", **more):
    """The one status and the one comment on a change whose gate left ``data``."""
    github.open(7, HEAD, BASE, **more)
    github.ran("gate.yml", HEAD, conclusion, data)
    assert say() == 0
    (status,), (said,) = github.statuses, github.comments
    assert said["body"].startswith(markdown.MARKER)
    assert "from the artifact" not in said["body"]
    return status, said["body"]
