"""What a session refuses to measure, and what it records of the two sides."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from test_gate_end_to_end import GOOD

from msa_harness.client import WorkerError
from msa_harness.gates import parse_gates
from msa_harness.subjects import Subject
from msa_suites.folders import judge_paths
from msa_suites.session import Session, Side
from msa_suites.shared import shared_imports
from msa_suites.software import check_resumed, software_samples, voids

GATES = parse_gates('[[gate]]\nseries = "speed/machine/software"\nmethod = "report"\nceiling = 0.0')


def test_code_from_elsewhere_is_not_the_subject(tmp_path):
    own, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    own.mkdir()
    elsewhere.mkdir()
    (elsewhere / "theirs.py").write_text(GOOD)
    paths = (*judge_paths(with_method=True), elsewhere)
    side = Side(Subject("head", sys.executable, (own,)), "theirs", attested=("theirs",))
    session = Session({"head": side}, threads=1, judge_paths=paths)
    with pytest.raises(WorkerError, match=f"not the subject's: theirs: wanted it from {own}"):
        session.start("head")
    from_there = Side(Subject("head", sys.executable, (elsewhere,)), "theirs", ("theirs",))
    session = Session({"head": from_there}, threads=1, judge_paths=paths)
    software = session.software()["head"]
    assert {"python", "torch", "numpy", "threads"} <= set(software)
    assert software["threads"] == "1"
    assert session.ran("head").startswith("theirs")


def sides(may_differ=(), **head):
    base = {"python": "3.11.7", "torch": "2.13.0", "threads": "2"}
    found = {"base": base, "head": {**base, **head}}
    return SimpleNamespace(
        sides=found,
        software=lambda: found,
        may_differ=frozenset(may_differ),
        gates=GATES,
        ran=lambda _label: "",
        repro=lambda _suite: "",
    )


@pytest.mark.parametrize(
    ("may_differ", "head", "value", "words"),
    [
        ((), {}, 0.0, "python 3.11.7, torch 2.13.0, threads 2"),
        ((), {"torch": "2.11.0"}, 1.0, "differs: torch 2.13.0 in base, 2.11.0 in head; "),
        ((), {"triton": "3.6.0"}, 1.0, "differs: triton none in base, 3.6.0 in head; "),
        ((), {"threads": "1", "python": "3.12.1"}, 2.0, "differs: threads 2 in base, 1 in head"),
        (("torch",), {"torch": "2.11.0"}, 0.0, "may differ: torch 2.13.0 in base, 2.11.0 in head"),
        (("python",), {"torch": "2.11.0"}, 1.0, "differs: torch"),
    ],
)
def test_versions_are_compared_and_recorded(may_differ, head, value, words):
    session = sides(may_differ, **head)
    samples = software_samples(session)
    assert [sample.value for sample in samples] == [value, value]
    assert all(words in sample.detail for sample in samples)
    assert voids(samples, session) is (value > 0)
    check_resumed(samples, samples)
    if head:
        with pytest.raises(ValueError, match=r"--resume: wanted .* on the recorded "):
            check_resumed(samples, software_samples(sides()))


@pytest.mark.parametrize(
    ("python", "attested", "how", "suites", "shared"),
    [
        (sys.executable, ("msa",), {}, ["correctness", "quality"], True),
        (sys.executable, ("msa",), {}, ["work"], True),
        (sys.executable, ("msa",), {}, ["correctness", "method"], False),
        (sys.executable, ("msa",), {"device": "cuda"}, ["quality"], False),
        (sys.executable, ("msa",), {"timeout": 10.0}, ["quality"], False),
        (sys.executable, ("theirs",), {}, ["work"], False),
        ("/another/python", ("msa",), {}, ["quality"], False),
    ],
)
def test_imports_are_shared_where_models_run_in_the_judges_python(
    python, attested, how, suites, shared
):
    both = {
        label: Side(Subject(label, at, ()), "theirs", attested)
        for label, at in (("base", sys.executable), ("head", python))
    }
    session = Session(both, **how)
    with shared_imports(session, suites) as given:
        assert given.forked is shared
        assert given.sides is session.sides


def test_a_session_that_shares_already_stays_as_it_is():
    session = Session({}, forked=True)
    with shared_imports(session, ["quality"]) as given:
        assert given is session
