"""The fault matrix: its table is sound, its replacements reach the code, and it can say MISSED."""

from __future__ import annotations

import json
import sys
import types
from collections import Counter
from dataclasses import replace

import pytest

from msa_suites import SUITES, cli
from msa_suites.cases import CASES
from msa_suites.correctness.table import CHECKS as TABLE
from msa_suites.faults.code import AnchorError, Code
from msa_suites.faults.run import FaultsError, Matrix
from msa_suites.faults.table import CLASSES, Fault, fault, faults, wrapping
from msa_suites.method.suite import CHECKS
from msa_suites.quality.items import TASKS
from msa_suites.self_test import self_test
from msa_suites.speed.series import counted_series, speed_series

pytestmark = pytest.mark.whole

NAMES = {
    "correctness": {*TABLE, *(case.name for case in CASES if "correctness" in case.tags)},
    "method": set(CHECKS),
    "quality": {*TASKS, "fidelity"},
    "speed": {series.name for series in speed_series("quick")},
    "work": {"cache", "retrofit", *(one.case.name for one in counted_series())},
}


def test_there_are_faults_of_every_class():
    counts = Counter(one.kind for one in faults().values())
    assert set(counts) == set(CLASSES)
    assert counts.total() >= 80


@pytest.mark.parametrize("one", faults().values(), ids=lambda one: one.name)
def test_a_fault_names_gates_that_there_are(one):
    assert one.summary.endswith(".")
    for gate in one.gates:
        suite, _, what = gate.partition(":")
        assert suite in SUITES
        assert not what or what in NAMES[suite]


@pytest.fixture
def toy(monkeypatch):
    """Two modules of the subject, one of which has imported from the other."""
    one, other, foreign = (
        types.ModuleType(name) for name in ("msa._one", "msa._other", "elsewhere")
    )

    def right(x):
        return x + 1

    class Thing:
        def method(self, x):
            return x * 2

    one.right = other.renamed = foreign.right = right
    one.Thing = Thing
    for module in (one, other, foreign):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return types.SimpleNamespace(one=one, other=other, foreign=foreign)


def test_a_function_is_replaced_wherever_the_subject_has_bound_it(toy, tmp_path):
    mark = tmp_path / "mark"
    Code(mark).wrap("msa._one.right", lambda right: lambda x: right(x) + 10)
    assert not mark.exists()
    assert (toy.one.right(1), toy.other.renamed(1), toy.foreign.right(1)) == (12, 12, 2)
    assert mark.exists()


def test_a_function_is_replaced_in_one_module_only(toy):
    Code().wrap("msa._one.right", lambda right: lambda x: right(x) + 10, within="msa._other")
    assert (toy.one.right(1), toy.other.renamed(1)) == (2, 12)


def test_a_method_is_replaced(toy):
    @wrapping("msa._one.Thing.method")
    def wrong(right, self, x):
        """Too large."""
        return right(self, x) + 1

    wrong(Code())
    assert toy.one.Thing().method(3) == 7
    assert wrong.__doc__ == "Too large."


@pytest.mark.parametrize(
    ("where", "within"),
    [
        ("msa._one.gone", ""),
        ("msa._one.Thing.gone", ""),
        ("msa._gone.right", ""),
        ("nowhere.at_all", ""),
        ("msa._one.right", "msa._gone"),
    ],
)
def test_a_fault_whose_anchor_is_gone_is_an_error(toy, where, within):
    del toy
    with pytest.raises(AnchorError, match="wanted"):
        Code().wrap(where, lambda right: right, within=within)


def test_bad_table_entries_are_refused():
    with pytest.raises(ValueError, match="wanted a class of"):
        fault("colour", "work")
    with pytest.raises(ValueError, match="and gates"):
        fault("speed")

    def mean_pooling(code):
        del code

    with pytest.raises(ValueError, match="'mean-pooling' twice"):
        fault("selection", "work")(mean_pooling)


@pytest.fixture
def matrix(tmp_path):
    session, gates = self_test(timeout=60, threads=1)
    return Matrix(session, gates, tmp_path)


def _moved(name: str, *gates: str) -> Fault:
    return replace(faults()[name], gates=gates)


def test_a_fault_that_a_gate_cannot_see_is_missed_there(matrix):
    seen, unseen, idle = matrix.run(
        [
            _moved("sink-block-not-forced", "correctness:sink-1"),
            _moved("sink-block-not-forced", "correctness:group-of-3"),
            _moved("index-keys-not-stored", "correctness:group-of-3"),
        ],
        at_once=2,
    )
    assert seen.by
    assert seen.applied
    assert seen.gate == "correctness:sink-1"
    assert (unseen.by, unseen.applied, unseen.verdict) == ((), True, "PASS")
    assert (idle.by, idle.applied) == ((), False)


def test_a_gate_of_the_conformance_suite_is_a_case_or_a_check(matrix):
    named, other = matrix.run(
        [
            _moved("sink-block-not-forced", "correctness:selection"),
            _moved("sink-block-not-forced", "correctness:attention_large"),
        ],
        at_once=1,
    )
    assert named.by == ("correctness/selection",)
    assert other.by == ()
    with pytest.raises(FaultsError, match=r"wanted a case or a check of it, got 'selectin'; did"):
        matrix.catch(_moved("sink-block-not-forced", "correctness:selectin"))


def test_a_gate_that_fails_the_right_code_is_an_error(matrix):
    wrong = "msa_suites.faults.injected:mean_pooling"
    matrix.session = replace(
        matrix.session,
        sides={
            name: replace(side, implementation=wrong) for name, side in matrix.session.sides.items()
        },
    )
    with pytest.raises(FaultsError, match="wanted PASS for the right code, got REGRESSION"):
        list(matrix.run([_moved("all-zero-output", "correctness:group-of-3")], at_once=1))


def test_the_quick_matrix_from_the_command_line(capsys):
    assert cli.main(["faults", "--one-per-class", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["killed"] == document["total"] == len(CLASSES)
    for row in document["faults"]:
        assert row["caught"]
        assert row["applied"]
        assert row["caught_by"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--only", "mean-poling"], "did you mean mean-pooling"),
        (["--class", "colour"], "wanted one of selection"),
        (["--only", "mean-pooling", "--class", "speed"], "wanted a fault that can run here"),
    ],
)
def test_bad_input(argv, text, capsys):
    assert cli.main(["faults", *argv]) == cli.ERROR_EXIT
    assert text in capsys.readouterr().err


def test_the_table_is_listed(capsys):
    assert cli.main(["list", "faults", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["faults"]
    assert [row["name"] for row in rows] == list(faults())
