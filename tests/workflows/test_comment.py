"""What the comment job believes, refuses and writes, whatever lies in the artifact."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fake_github import BOT
from left_behind import BASE, FORK, HEAD, archive, document, judged, say

from msa_harness.verdicts import Verdict
from msa_reports import artifact, markdown

HOSTILE = (
    "::error::x\n<script>alert(1)</script> [x](javascript:1) @all #1 | `x` ![i](//e) ##[group]"
)


@pytest.mark.parametrize(
    ("verdict", "conclusion", "state"),
    [
        ("PASS", "success", "success"),
        ("REGRESSION", "failure", "failure"),
        ("INCONCLUSIVE", "failure", "error"),
        ("INVALID", "failure", "error"),
        ("ERROR", "failure", "error"),
    ],
)
def test_each_verdict_is_shown_and_only_a_pass_opens_the_way(verdict, conclusion, state, github):
    status, body = judged(github, archive(document(Verdict(verdict))), conclusion)
    assert (status["state"], status["sha"], status["context"]) == (state, HEAD, "msa-bench/cpu")
    assert status["description"].startswith(verdict)
    assert f" {verdict}: " in body
    assert "correctness/scores" in body
    assert (verdict == "PASS") == ("msa-bench gate --suite correctness" not in body)


@pytest.mark.parametrize(
    ("verdict", "conclusion"),
    [
        *[("PASS", end) for end in ("failure", "cancelled", "timed_out", "skipped", "neutral")],
        *[("REGRESSION", "success"), ("INVALID", "success")],
    ],
)
def test_a_verdict_that_the_job_does_not_bear_out_is_an_error(verdict, conclusion, github):
    status, body = judged(github, archive(document(Verdict(verdict))), conclusion)
    assert status["state"] == "error"
    assert f"the run ended as {conclusion}" in status["description"]
    assert "correctness/scores" not in body


@pytest.mark.parametrize("conclusion", [None, "action_required"])
def test_a_run_that_has_not_ended_is_pending(conclusion, github):
    status, body = judged(github, None, conclusion)
    assert status["state"] == "pending"
    assert "waits for approval" in body


def test_hostile_words_are_shown_as_words(github, capsys):
    hostile = document(Verdict.REGRESSION, name=HOSTILE, note=HOSTILE, unit=HOSTILE, repro=HOSTILE)
    hostile["notes"] = [HOSTILE] * 30
    status, body = judged(github, archive(hostile), "failure")
    assert status["state"] == "failure"
    outside_code = "".join(body.split("```")[::2])
    for danger in ("<script", "](javascript", "@all", "#1 ", "![i]", "##["):
        assert danger not in outside_code
    for line in (*body.split("\n"), *capsys.readouterr().out.split("\n")):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def test_a_body_always_fits(github):
    many = document(Verdict.REGRESSION, note="x" * 900, repro="y" * 900)
    many["series"] = [{**many["series"][0], "name": f"correctness/{i}"} for i in range(1500)]
    github.ran("blackwell.yml", HEAD, "failure", archive(many))
    github.open(7, HEAD, BASE)
    github.ran("gate.yml", HEAD, "failure", archive(many))
    assert say() == 0  # the server refuses more than 65,536 characters
    (said,) = github.comments
    assert said["body"].count("left out here for length") >= 2
    assert said["body"].index("## CPU: ") < said["body"].index("## Blackwell: ")
    assert [s["context"] for s in github.statuses] == ["msa-bench/cpu", "msa-bench/blackwell"]


def test_the_comment_is_written_anew_and_a_forged_one_is_left_alone(github):
    forged = f"{markdown.MARKER}\nall is well"
    for author in ("someone", None, "github-actions"):
        github.say(author, forged)
    github.say(BOT, "another of the bot's")
    github.open(7, HEAD, BASE)
    github.ran("gate.yml", HEAD, "failure", archive(document(Verdict.REGRESSION)))
    assert say() == 0
    github.ran("gate.yml", HEAD, "success", archive())
    assert say() == 0
    assert [c["body"] for c in github.comments[:4]] == [*[forged] * 3, "another of the bot's"]
    (ours,) = github.comments[4:]
    assert "PASS" in ours["body"]
    assert "REGRESSION" not in ours["body"]
    assert [status["state"] for status in github.statuses] == ["failure", "success"]


def test_the_newest_run_and_its_newest_artifact_count(github):
    github.open(7, HEAD, BASE)
    github.ran("gate.yml", HEAD, "success", archive())
    run = github.ran("gate.yml", HEAD, "failure", archive())
    github.left(run, archive(document(Verdict.REGRESSION)))
    github.left(run, b"another name", name="gate-run-2")
    github.left(run, b"too old", expired=True)
    github.ran("gate.yml", HEAD, "success", archive(), repository="another/fork")
    github.ran("gate.yml", HEAD, "success", archive(), repository=None)
    assert say() == 0
    assert github.statuses[0]["state"] == "failure"


def test_an_artifact_that_is_too_large_is_not_fetched(github):
    github.open(7, HEAD, BASE)
    run = github.ran("gate.yml", HEAD, "success")
    github.left(run, archive(), size=artifact.MAX_ARCHIVE + 1)
    assert say() == 0
    assert "wanted an artifact of at most" in github.statuses[0]["description"]
    assert not any("zip" in path for _, path, _ in github.asked)


def test_an_artifact_larger_than_it_says_is_cut_off_and_refused(github):
    github.open(7, HEAD, BASE)
    github.left(github.ran("gate.yml", HEAD, "success"), bytes(artifact.MAX_ARCHIVE + 9), size=9)
    assert say() == 0
    assert "wanted an archive of at most" in github.statuses[0]["description"]


def test_a_change_that_edits_the_workflows_does_not_judge_itself(github):
    status, body = judged(github, archive(), edits_workflows=True)
    assert status["state"] == "error"
    assert "a maintainer has to judge it" in status["description"]
    assert "PASS" not in body


def nothing_written(github):
    return not github.statuses and not github.comments


@pytest.mark.parametrize("repository", ["another/fork", None])
def test_without_an_open_pull_request_nothing_is_written(repository, github, capsys):
    github.open(7, HEAD, BASE, repository=repository)
    github.open(8, "c" * 40, BASE)
    github.ran("gate.yml", HEAD, "success", archive())
    assert say() == 0
    assert f"no open pull request has head {HEAD}" in capsys.readouterr().err
    assert nothing_written(github)


def test_with_two_open_pull_requests_nothing_is_written(github, capsys):
    for number in (7, 9):
        github.open(number, HEAD, BASE)
    github.ran("gate.yml", HEAD, "success", archive())
    assert say() == 2
    assert (
        "wanted one open pull request with head aaaaaaaaaa, got #7, #9" in capsys.readouterr().err
    )
    assert nothing_written(github)


def test_the_pull_request_is_found_on_a_later_page(github):
    for number in range(1000, 1250):
        github.open(number, "c" * 40, BASE)
    assert judged(github, archive())[0]["state"] == "success"
    assert any("/issues/7/comments" in path for _, path, _ in github.asked)


def test_without_a_run_of_a_gate_nothing_is_written(github, capsys):
    github.open(7, HEAD, BASE)
    assert say() == 2
    assert "wanted a run of a gate" in capsys.readouterr().err
    assert nothing_written(github)


@pytest.mark.parametrize(
    ("head", "fork", "words"),
    [
        ("main", FORK, "wanted 40 hexadecimal digits, got 'main'"),
        ("A" * 40, FORK, "wanted 40 hexadecimal digits"),
        (HEAD, "", "wanted owner/name, got ''"),
        (HEAD, "a/b/../../c", "wanted owner/name"),
        (HEAD, "a/b\n::x", "wanted owner/name, got 'a/b\\n::x'"),
    ],
)
def test_bad_arguments_are_named(head, fork, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        say(head, fork)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("github")
def test_github_saying_no_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("GITHUB_TOKEN", "another")
    assert say() == 2
    said = capsys.readouterr().err
    assert "GET pulls: 401" in said
    assert said.count("\n") == 1
    monkeypatch.delenv("GITHUB_TOKEN")
    assert say() == 2
    assert "GITHUB_TOKEN: wanted a token of the job, got none" in capsys.readouterr().err


def test_the_job_that_may_write_loads_two_packages():
    """`nox -s comment` installs requests and jinja2; what they bring is theirs."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from msa_suites import cli; cli.build_parser('comment')\n"
        "from msa_suites import github, pull_requests\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split()) - set(sys.stdlib_module_names)
    brought = {"urllib3", "idna", "certifi", "charset_normalizer", "markupsafe"}
    optional = {
        "chardet",
        "cython_runtime",
        "brotli",
        "brotlicffi",
        "socks",
        "zstandard",
        "h2",
        "simplejson",
    }
    foreign = {n for n in loaded if not n.startswith("_") and not n.startswith("msa")}
    assert foreign - brought - optional == {"requests", "jinja2"}, foreign
