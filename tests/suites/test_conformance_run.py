"""The plan of a run, and its results as records and JSON."""

import dataclasses

import pytest

import msa_kernels
from msa_suites.cases import CASES, case_named
from msa_suites.correctness import (
    CHECKS,
    CheckResult,
    conforms,
    local_call,
    plan,
    run_checks,
    to_document,
    to_samples,
)

RESULTS = [
    CheckResult("scores", "a", "passed", "", 0.1),
    CheckResult("scores", "b", "failed", "scores: wrong", 0.1),
    CheckResult("combine", "a", "skipped", "it has no combine", 0.0),
]


def again(check, case):
    return f"again {check} {case}"


def test_samples_carry_one_zero_and_none():
    samples = to_samples(RESULTS, subject="head", ran="x 1", repro=lambda r: again(r.check, r.case))
    assert [s.value for s in samples] == [1.0, 0.0, None]
    assert [s.series for s in samples] == [
        "correctness/scores",
        "correctness/scores",
        "correctness/combine",
    ]
    assert [s.item for s in samples] == ["a", "b", "a"]
    assert samples[1].detail == "scores: wrong"
    assert {(s.suite, s.unit, s.subject, s.ran, s.repro) for s in samples} == {
        ("correctness", "check", "head", "x 1", f"again {check} {case}")
        for check, case in (("scores", "a"), ("scores", "b"), ("combine", "a"))
    }


def test_the_document_has_the_shape_that_scripts_rely_on():
    document = to_document(RESULTS, implementation="torch", repeat=again)
    assert {k: document[k] for k in ("implementation", "passed", "failed", "skipped")} == {
        "implementation": "torch",
        "passed": 1,
        "failed": 1,
        "skipped": 1,
    }
    assert document["failures"] == [
        {"check": "scores", "case": "b", "detail": "scores: wrong", "repeat": "again scores b"}
    ]


@pytest.mark.parametrize(
    ("results", "good"), [(RESULTS, False), (RESULTS[::2], True), (RESULTS[2:], False), ([], False)]
)
def test_only_a_run_that_passed_something_and_failed_nothing_conforms(results, good):
    assert conforms(results) is good


def test_an_unknown_check_lists_near_matches():
    with pytest.raises(ValueError, match="selection_nan"):
        plan(only=["selection_nann"])


def test_a_run_without_a_context_above_the_budget_is_refused():
    with pytest.raises(ValueError, match="above its budget"):
        plan(cases=[case_named("length-1")])


def test_every_check_has_a_case_and_a_title():
    planned = {name for _, names in plan() for name in names}
    assert planned == set(CHECKS)
    assert all(check.title.endswith(".") for check in CHECKS.values())


def test_every_profile_holds_the_smaller_one():
    sizes = [sum(len(names) for _, names in plan(profile=p)) for p in ("quick", "standard", "full")]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2]


def test_own_cases_get_every_check_that_applies():
    mine = dataclasses.replace(case_named("group-of-1"), name="mine", tags=())
    assert mine not in CASES
    ((case, names),) = plan(cases=[mine])
    assert case is mine
    assert set(names) == set(CHECKS)
    found = msa_kernels.load("torch")
    seen = []
    results = run_checks(
        local_call(found), msa_kernels.capabilities(found), cases=[mine], progress=seen.append
    )
    assert conforms(results)
    assert [p.check for p in seen] == list(names)
    assert seen[-1].number == seen[-1].total
