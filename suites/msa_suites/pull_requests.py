"""From a commit to its pull request and to what the gates said of it, by GitHub's own word alone.

Nothing that the change could have written tells where to look or where to write: no number in an
artifact, no name of a branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msa_reports import comment, markdown
from msa_reports.artifact import MAX_ARCHIVE, ArtifactError, read_archive
from msa_reports.comment import GateRun
from msa_suites.github import GitHub

ARTIFACT = "gate-run"
#: Workflow -> what people call the gate, and its status.
GATES = {
    "gate.yml": ("CPU", "msa-bench/cpu"),
    "blackwell.yml": ("Blackwell", "msa-bench/blackwell"),
}
#: Who writes comments with a job's token.
BOT = "github-actions[bot]"
_EDITED = "the change edits .github, so its own workflow files ran: a maintainer has to judge it"


@dataclass(frozen=True, slots=True)
class Head:
    """A commit that was pushed for a pull request, and the repository it was pushed to."""

    sha: str
    repository: str


@dataclass(frozen=True, slots=True)
class PullRequest:
    """An open pull request."""

    number: int
    base: str


def find(github: GitHub, head: Head) -> PullRequest | None:
    """The open pull request with this head; None where there is none any more.

    Raises:
        ValueError: there are several. A status belongs to the commit: what one base allows would
            open the way into another.
    """
    found = [
        PullRequest(int(pull["number"]), str(pull["base"]["sha"]))
        for pull in github.pages("pulls", state="open")
        if pull["head"]["sha"] == head.sha and _is(pull["head"]["repo"], head.repository)
    ]
    if len(found) > 1:
        numbers = ", ".join(f"#{pull.number}" for pull in found)
        raise ValueError(f"wanted one open pull request with head {head.sha[:10]}, got {numbers}")
    return found[0] if found else None


def gate_runs(github: GitHub, head: Head, pull: PullRequest) -> list[GateRun]:
    """The newest run of each gate for this head, those that never started left out."""
    edited = _edits_workflows(github, head, pull)
    runs = []
    for workflow, (title, context) in GATES.items():
        found = [
            run
            for run in github.pages(
                f"actions/workflows/{workflow}/runs",
                "workflow_runs",
                head_sha=head.sha,
                event="pull_request",
            )
            if run["head_sha"] == head.sha and _is(run["head_repository"], head.repository)
        ]
        if found:
            newest = max(found, key=lambda run: int(run["run_number"]))
            runs.append(_gate_run(github, title, context, newest, edited=edited))
    return runs


def say(github: GitHub, head: Head, pull: PullRequest, runs: list[GateRun]) -> None:
    """Set the statuses, then write the comment, or write it anew."""
    for run in runs:
        github.send(
            *("POST", f"statuses/{head.sha}"),
            state=run.state.value,
            context=run.context,
            description=run.description,
            target_url=run.url,
        )
    body = comment.render(runs, number=pull.number, head=head.sha, base=pull.base)
    path = f"issues/{pull.number}/comments"
    # Anybody can write the marker; only the bot can write as the bot.
    ours = [
        one["id"]
        for one in github.pages(path)
        if (one["user"] or {}).get("login") == BOT and one["body"].startswith(markdown.MARKER)
    ]
    if ours:
        github.send("PATCH", f"issues/comments/{ours[0]}", body=body)
    else:
        github.send("POST", path, body=body)


def _is(repository: Any, name: str) -> bool:  # noqa: ANN401
    """Whether GitHub means this repository; of a deleted fork it says null."""
    return bool(repository) and str(repository["full_name"]).lower() == name.lower()


def _edits_workflows(github: GitHub, head: Head, pull: PullRequest) -> bool:
    """Whether the change brings workflow files of its own: those are what ran.

    Asked by commits, which cannot change while we ask; a list of a pull request's files can.
    """
    together = github.get(f"compare/{pull.base}...{head.sha}", per_page=1)
    fork_point = str(together["merge_base_commit"]["sha"])
    before, after = (
        [
            entry["sha"]
            for entry in github.get(f"git/trees/{sha}")["tree"]
            if entry["path"] == ".github"
        ]
        for sha in (fork_point, head.sha)
    )
    return bool(before != after)


def _gate_run(
    github: GitHub, title: str, context: str, run: dict[str, Any], *, edited: bool
) -> GateRun:
    conclusion = run["conclusion"] if run["status"] == "completed" else None
    if conclusion == "action_required":
        conclusion = None  # a change from outside that nobody has let run yet
    outcome, problem = None, _EDITED if edited else ""
    if conclusion in ("success", "failure") and not edited:
        try:
            outcome = read_archive(_archive(github, int(run["id"])))
        except ArtifactError as error:
            problem = f"no verdict to believe: {error}"
    return GateRun(title, context, str(run["html_url"]), conclusion, outcome, problem)


def _archive(github: GitHub, run: int) -> bytes:
    """The newest artifact of a run: each attempt leaves its own.

    Raises:
        ArtifactError: there is none, it has expired, or it is larger than a run's can be.
    """
    found = [
        one
        for one in github.pages(f"actions/runs/{run}/artifacts", "artifacts", name=ARTIFACT)
        if one["name"] == ARTIFACT and not one["expired"]
    ]
    if not found:
        raise ArtifactError(f"the run left no artifact {ARTIFACT}")
    newest = max(found, key=lambda one: int(one["id"]))
    if int(newest["size_in_bytes"]) > MAX_ARCHIVE:
        raise ArtifactError(
            f"wanted an artifact of at most {MAX_ARCHIVE:,} bytes, got {newest['size_in_bytes']:,}"
        )
    return github.download(f"actions/artifacts/{newest['id']}/zip", limit=MAX_ARCHIVE)
