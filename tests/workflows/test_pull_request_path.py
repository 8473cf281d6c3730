"""A pull request from the push to the comment, by the workflow files' own steps."""

from __future__ import annotations

import json

import fake_github
import pytest
from fake_github import packed
from repositories import copy_of_ours, git, good, mean_pooling, pull_request
from simulated import Runner

pytestmark = pytest.mark.whole

CASES = [
    {"name": "small", "q_lens": [70], "k_lens": [70], "Hq": 2, "Hkv": 1, "D": 16, "Di": 16,
     "block": 16, "topk": 2}
]  # fmt: skip


@pytest.fixture
def origin(tmp_path):
    (tmp_path / "origin").mkdir()
    return copy_of_ours(tmp_path / "origin")


def small_gate(folder):
    """What makes a gate short: one suite, one shape."""
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in CASES))
    return ["--suite", "correctness", "--cases", str(folder / "cases.jsonl"), "--threads", "1"]


def on_a_cpu(folder):
    """The same in the place of a gate on a GPU."""
    dropped = ["--device", "--implementation", "--suite", "--profile"]
    return {"drop": dropped, "more": small_gate(folder)}


def comment_on(runner, event):
    """The comment workflow, as GitHub starts it when a gate of ``event`` has ended."""
    pull = event["event"]["pull_request"]
    run = {"event": "pull_request", "head_sha": pull["head"]["sha"]}
    run |= {"head_repository": pull["head"]["repo"], "pull_requests": []}
    context = {"sha": "main", "repository": event["repository"], "workflow": "comment"}
    context |= {"token": fake_github.TOKEN, "event": {"workflow_run": run}}
    return runner.run("comment.yml", "comment", context)


def uploaded(ended):
    files = {path.name: path.read_bytes() for path in ended.artifacts["gate-run"].iterdir()}
    assert {"run.json", "samples.jsonl", "verdict.json", "report.md", "report.html"} <= set(files)
    return files


@pytest.mark.parametrize(
    ("change", "ends", "state"),
    [(good, "success", "success"), (mean_pooling, "failure", "failure")],
)
def test_the_whole_path(change, ends, state, origin, github, tmp_path):
    event = pull_request(origin, 7, change)
    head = event["event"]["pull_request"]["head"]["sha"]
    machine = Runner(
        tmp_path / "machine",
        origin,
        stand_ins={"gate": {"more": small_gate(tmp_path)}},
        environment={"GITHUB_API_URL": github.url},
    )
    ended = machine.run("gate.yml", "gate", event)
    assert ended.conclusion == ends, ended.said
    files = uploaded(ended)
    assert ended.summary == files["report.md"].decode()
    (called,) = ended.nox
    assert called[:4] == ["-f", "judge/noxfile.py", "-s", "gate"]

    github.open(7, head, event["event"]["pull_request"]["base"]["sha"])
    github.ran("gate.yml", head, ends, packed(files))
    said = comment_on(machine, event)
    assert said.conclusion == "success", said.said
    (status,) = github.statuses
    assert (status["sha"], status["context"]) == (head, "msa-bench/cpu")
    assert status["state"] == state
    (comment,) = github.comments
    assert f"Judged: {head[:10]} merged into" in comment["body"]
    if change is good:
        assert "## CPU: ✓ PASS: none of" in comment["body"]
    else:
        assert "## CPU: ✗ REGRESSION" in comment["body"]
        assert "<code>correctness/scores</code>" in comment["body"]
        assert "likely cause: the mean of a block" in comment["body"]
        assert "msa-bench gate --suite correctness --implementation torch" in comment["body"]
        assert "--base HEAD --head ../head" in comment["body"]
        assert "git fetch origin pull/7/merge" in comment["body"]
        assert "REGRESSION" in status["description"]
    # Only our server saw the token: the archive lies on another host.
    assert all(token is None for _, path, token in github.asked if path.startswith("/blob"))


@pytest.mark.slow
def test_a_gpu_job_without_a_gpu_blocks_and_says_why(origin, github, tmp_path):
    event = pull_request(origin, 8, good)
    head = event["event"]["pull_request"]["head"]["sha"]
    environment = {"GITHUB_API_URL": github.url, "CUDA_VISIBLE_DEVICES": ""}
    machine = Runner(tmp_path / "machine", origin, environment=environment)
    ended = machine.run("blackwell.yml", "gate", event)
    assert (ended.conclusion, ended.environment) == ("failure", "blackwell-outside")
    assert ended.runs_on == ["self-hosted", "gpu", "blackwell"]
    assert "device: wanted one that torch" in ended.said, ended.said
    left = {path.name: path.read_bytes() for path in ended.artifacts["gate-run"].iterdir()}
    assert "verdict.json" not in left
    github.open(8, head, event["event"]["pull_request"]["base"]["sha"])
    github.ran("blackwell.yml", head, ended.conclusion, packed(left))
    assert comment_on(machine, event).conclusion == "success"
    (status,) = github.statuses
    assert (status["state"], status["context"]) == ("error", "msa-bench/blackwell")
    assert status["description"] == "no verdict to believe: wanted one verdict.json, got none"


@pytest.mark.slow
@pytest.mark.parametrize(("change", "ends"), [(good, "success"), (mean_pooling, "failure")])
def test_the_gpu_job_with_a_cpu_in_the_place_of_the_gpu(change, ends, origin, tmp_path):
    event = pull_request(origin, 9, change)
    machine = Runner(tmp_path / "machine", origin, stand_ins={"gate": on_a_cpu(tmp_path)})
    ended = machine.run("blackwell.yml", "gate", event)
    assert ended.conclusion == ends, ended.said
    assert "verdict.json" in uploaded(ended)
    (called,) = ended.nox
    assert called[called.index("--") :][1:5] == ["--device", "cuda", "--implementation", "triton"]


def test_changes_of_our_own_people_wait_for_nobody(origin, tmp_path):
    event = pull_request(origin, 10, good)
    event["event"]["pull_request"]["head"]["repo"]["full_name"] = event["repository"]
    machine = Runner(tmp_path / "machine", origin, stand_ins={"gate": {"script": "true"}})
    assert machine.run("blackwell.yml", "gate", event).environment == "blackwell"


def test_a_comment_needs_a_pull_request(origin, tmp_path):
    machine = Runner(tmp_path / "machine", origin)
    event = {"workflow_run": {"event": "push", "head_sha": "a" * 40}}
    assert machine.run("comment.yml", "comment", {"sha": "main", "event": event}) is None


@pytest.mark.parametrize(
    ("name", "job", "sessions"),
    [
        ("pull-request.yml", "checks", ["lint", "types", "tests", "tests_whole", "kernels", "aot"]),
        ("weekly.yml", "sessions", ["tests_slow", "faults"]),
        ("weekly.yml", "compile", ["aot"]),
    ],
)
def test_the_checks_call_sessions_that_there_are(name, job, sessions, origin, tmp_path):
    stand_ins = {session: {"script": "true"} for session in sessions}
    machine = Runner(tmp_path / "machine", origin, stand_ins=stand_ins)
    for session in sessions:
        ended = machine.run(name, job, {"sha": "main"}, matrix={"session": session})
        assert ended.conclusion == "success", ended.said
        assert [called[called.index("-s") + 1] for called in ended.nox] == [session]


RECORD = "mkdir -p run && echo {} > run/run.json && echo a report > run/report.md"
PUBLISHED = (
    "mkdir -p pages/results pages/docs && cp run/report.md pages/docs && ls run >> pages/results/a"
)


def test_a_night_is_compared_with_a_week_ago_and_published(origin, tmp_path):
    stand_ins = {"gate": {"script": RECORD}, "publish": {"script": PUBLISHED}}
    machine = Runner(tmp_path / "machine", origin, stand_ins=stand_ins)
    # A schedule: no commit before, none a week old.
    pull_request(origin, 11, good)
    git(origin, "merge", "-q", "--ff-only", "refs/pull/11/merge")
    context = {"sha": "main", "token": fake_github.TOKEN, "event": {}}
    for night in (1, 2):
        measured = machine.run("history.yml", "measure", context)
        assert measured.conclusion == "success", measured.said
        (called,) = measured.nox
        assert "--base=HEAD^" in called
        assert called[called.index("--profile") + 1] == "full"
        published = machine.run("history.yml", "publish", context)
        assert published.conclusion == "success", published.said
        assert git(origin, "log", "--oneline", "pages").count("\n") == night - 1
        names = git(origin, "ls-tree", "-r", "--name-only", "pages").split()
        assert names == ["docs/.nojekyll", "docs/report.md", "results/a"]
        assert fake_github.TOKEN not in published.said
    assert git(origin, "show", "pages:results/a").count("report.md") == 2  # last night's is kept
    after_a_push = machine.run("history.yml", "measure", {**context, "event": {"before": "a" * 40}})
    assert f"--base={'a' * 40}" in after_a_push.nox[0]


@pytest.mark.slow
def test_a_night_is_published_for_real(origin, tmp_path):
    pull_request(origin, 12, good)
    git(origin, "merge", "-q", "--ff-only", "refs/pull/12/merge")
    machine = Runner(tmp_path / "machine", origin, stand_ins={"gate": on_a_cpu(tmp_path)})
    context = {"sha": "main", "token": fake_github.TOKEN, "event": {}}
    measured = machine.run("history.yml", "measure", context)
    assert measured.conclusion == "success", measured.said
    published = machine.run("history.yml", "publish", context)
    assert published.conclusion == "success", published.said
    names = git(origin, "ls-tree", "-r", "--name-only", "pages").splitlines()
    assert {"docs/index.html", "docs/.nojekyll"} <= set(names)
    assert any(name.startswith("results/") for name in names)
    assert all(name.startswith(("docs/", "results/")) for name in names)


def test_what_is_typed_for_a_manual_run_is_never_a_command(origin, tmp_path):
    typed = 'a\'; touch stolen; "$(touch stolen)" `touch stolen` --judge here'
    inputs = {"ref": "main", "base": "HEAD", "implementation": typed, "profile": "quick"}
    machine = Runner(tmp_path / "machine", origin, stand_ins={"gate": {"script": RECORD}})
    for device, place in (("cpu", "ubuntu-24.04"), ("cuda", ["self-hosted", "gpu", "blackwell"])):
        ended = machine.run(
            "manual.yml", "gate", {"sha": "main"}, inputs={**inputs, "device": device}
        )
        assert ended.runs_on == place
        assert f"--implementation={typed}" in ended.nox[0]
        assert ended.nox[0][:2] == ["--force-venv-backend", "uv" if device == "cpu" else "none"]
    assert not list(tmp_path.rglob("stolen"))
