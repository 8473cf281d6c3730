"""What every workflow file must have, whatever else it does."""

from __future__ import annotations

import re

import expressions
import pytest
from simulated import REPOSITORY, WORKFLOWS, read

NAMES = sorted(path.name for path in WORKFLOWS.glob("*.yml"))
STEPS = [
    (job, step) for name in NAMES for job in read(name)["jobs"].values() for step in job["steps"]
]


def test_all_five_are_there():
    ours = {"pull-request.yml", "gate.yml", "blackwell.yml", "comment.yml", "history.yml"}
    assert ours | {"manual.yml", "weekly.yml"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_job_may_do_little_and_ends(name):
    document = read(name)
    assert document["permissions"] == {}
    assert "concurrency" in document
    assert "pull_request_target" not in document["on"]
    for job in document["jobs"].values():
        assert job["timeout-minutes"] <= 240
        writing = {what for what, how in job["permissions"].items() if how == "write"}
        on_a_gpu = "blackwell" in str(job["runs-on"])
        allowed = {"comment.yml": {"pull-requests", "statuses"}, "history.yml": {"contents"}}
        assert writing <= allowed.get(name, set())
        if on_a_gpu:
            assert not writing
            assert job["environment"]


@pytest.mark.parametrize("name", ["gate.yml", "blackwell.yml"])
def test_a_change_that_is_turned_to_another_branch_is_judged_anew(name):
    started = read(name)["on"]["pull_request"]
    assert started["branches"] == ["main"]
    assert "edited" in started["types"]


@pytest.mark.parametrize(("job", "step"), STEPS)
def test_a_step_is_pinned_thin_and_safe(job, step):
    if "uses" in step:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])
        assert "cache" not in step["uses"]
        if "checkout" in step["uses"]:
            assert step["with"]["persist-credentials"] is False
        return
    assert "${{" not in step["run"]
    assert len(step["run"].strip().splitlines()) <= 4
    writing = "write" in job["permissions"].values()
    assert writing or "GITHUB_TOKEN" not in step.get("env", {})


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_used_and_each_pin_names_its_version(name):
    text = (WORKFLOWS / name).read_text()
    assert "secrets" not in text
    for line in text.splitlines():
        if re.search(r"(^| )uses:", line):
            assert re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)
        if "zizmor: ignore" in line:
            assert re.search(r"ignore\[[\w-]+\] \w+", line), "an exception needs its reason"


def test_the_writing_workflow_runs_nothing_of_the_change():
    (job,) = read("comment.yml")["jobs"].values()
    checkouts = [s for s in job["steps"] if "checkout" in s.get("uses", "")]
    assert [set(one["with"]) for one in checkouts] == [{"persist-credentials"}]  # no ref: main
    assert read("comment.yml")["on"]["workflow_run"]["workflows"] == ["gate", "blackwell"]
    assert read("gate.yml")["name"] == "gate"
    assert read("blackwell.yml")["name"] == "blackwell"


def test_what_decides_has_owners():
    lines = (REPOSITORY / ".github" / "CODEOWNERS").read_text().splitlines()
    owned = [line.split()[0] for line in lines if line and not line.startswith("#")]
    needed = ("suites/msa_suites/gates.toml", "msa/reference.py", ".github/workflows/gate.yml")
    for path in needed:
        assert any(f"/{path}".startswith(one) for one in owned), path
    assert all((REPOSITORY / one.lstrip("/")).exists() for one in owned)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b == 'x' && 'yes' || 'no'", "yes"),
        ("a.b != 'x' || !a.none", True),
        ("fromJSON('[1, 2]')", [1, 2]),
        ("a.none.deeper", None),
        ("(a.b == 'X')", True),
    ],
)
def test_expressions(text, value):
    assert expressions.evaluate(text, {"a": {"b": "x"}, "status": "success"}) == value


@pytest.mark.parametrize("text", ["hashFiles('a')", "vars.x", "a.b < 3", "a.b ==", "a.b 'x'"])
def test_expressions_that_are_not_simulated_are_errors(text):
    with pytest.raises(expressions.UnknownExpression):
        expressions.evaluate(text, {"a": {"b": "x"}, "status": "success"})
