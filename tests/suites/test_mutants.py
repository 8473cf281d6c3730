"""Mutants: every one is another program, the sample is repeatable, and a worker runs the change."""

from __future__ import annotations

import ast
import json

import pytest

from msa_suites import cli
from msa_suites.commands.mutants import _read
from msa_suites.faults.equivalents import claimed, claims, parse_claims, why_equivalent
from msa_suites.faults.killing import again, drawn, kill
from msa_suites.faults.mutants import implementation_of
from msa_suites.faults.mutation import MODULES, mutants_of, mutated, source_of
from msa_suites.faults.run import Matrix
from msa_suites.self_test import self_test


@pytest.mark.parametrize("module", MODULES)
def test_every_mutant_is_another_program(module):
    right = ast.dump(ast.parse(source_of(module).read_text()))
    mutants = mutants_of(module)
    assert len(mutants) >= 10
    assert len({one.name for one in mutants}) == len(mutants)
    for one in mutants:
        tree = mutated(module, one.number)
        assert ast.dump(tree) != right, one.name
        compile(tree, module, "exec")
        assert one.source


def test_there_are_enough_of_them():
    assert sum(len(mutants_of(module)) for module in MODULES) >= 300


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: f"{claim.module}: {claim.source}")
def test_a_claim_of_equivalence_is_about_a_mutant_and_says_why(claim):
    about = claimed(claim)
    assert about, "the line or the change is gone"
    assert len(claim.why) > 10
    assert all(why_equivalent(one.name) == claim.why for one in about)
    # One reason rarely holds for two places of a line: who means it, says so here.
    assert len(about) == 1 or claim.what == "Mult -> Add"


def test_what_nobody_claims_is_another_program():
    assert why_equivalent("msa.packing:1:0") == ""


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ('[[mutant]]\nmodule = "a"', "wanted module, source, what, why"),
        (
            '[[mutant]]\nmodule = "a"\nsource = "x = 1"\nwhat = "1 -> 2"\nwhy = " "',
            "wanted a reason for 'x = 1'",
        ),
    ],
)
def test_a_claim_without_its_parts_is_refused(table, text):
    with pytest.raises(ValueError, match=text):
        parse_claims(table)


@pytest.mark.parametrize("module", MODULES)
def test_errors_are_left_alone(module):
    tree = ast.parse(source_of(module).read_text())
    raising = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    assert not raising & {one.line for one in mutants_of(module)}


def test_a_sample_is_repeatable_and_in_order():
    first, again, other = (drawn(20, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert [MODULES.index(one.module) for one in first] == sorted(
        MODULES.index(one.module) for one in first
    )
    assert len(drawn(10**6, 0)) == sum(len(mutants_of(module)) for module in MODULES)


def test_an_unknown_site_is_an_error():
    with pytest.raises(ValueError, match="wanted a site of msa"):
        mutated("msa.packing", 9999)


def _change(module, text):
    return next(one for one in mutants_of(module) if one.what == text)


@pytest.mark.slow
def test_a_mutant_is_killed_and_a_harmless_one_is_not(tmp_path):
    wrong = _change("msa.packing", "Sub -> Add")
    # Threads that are not worth it change the time, never the result.
    harmless = next(one for one in mutants_of("msa.fast.scoring") if "_WORTH_THREADS" in one.source)
    session, gates = self_test(timeout=60, threads=1)
    matrix = Matrix(session, gates, tmp_path)
    outcome = matrix.judged("correctness:group-of-3", implementation_of(harmless))
    assert outcome.verdict == "PASS"
    (fate,) = kill(matrix, [wrong], at_once=1)
    assert fate.gate == "correctness"
    assert fate.series.startswith("correctness/")
    assert fate.as_dict()["what"] == "Sub -> Add"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--module", "msa.fast.scorin"], "did you mean msa.fast.scoring"),
        (["--count", "0"], "wanted an int above 0"),
        (["--resume"], "wanted an interrupted run"),
    ],
)
def test_bad_input(argv, text, capsys, tmp_path):
    try:
        code = cli.main(["mutants", "--out", str(tmp_path / "run"), *argv])
    except SystemExit as error:
        code = error.code
    assert code == cli.ERROR_EXIT
    assert text in capsys.readouterr().err


def test_a_torn_line_is_measured_again(tmp_path):
    path = tmp_path / "mutants.jsonl"
    row = {"mutant": "a", "gate": "", "what": "", "source": "", "equivalent": ""}
    path.write_text(json.dumps(row) + '\n{"mutant": "torn')
    assert _read(path, []) == [row]
    assert path.read_text() == json.dumps(row) + "\n"
    assert _read(tmp_path / "none", [row]) == [row]


def test_what_survived_is_tried_again_and_the_rest_is_kept():
    def row(one, gate):
        return {"mutant": one.name, "source": one.source, "what": one.what, "gate": gate}

    killed, survivor, moved = mutants_of("msa.packing")[:3]
    claimed_one = claimed(claims()[0])[0]
    elsewhere = {**row(moved, ""), "mutant": "msa.packing:1:999"}
    gone = {**row(survivor, ""), "source": "a line that is gone"}
    rows = [row(killed, "work"), row(survivor, ""), elsewhere, gone, row(claimed_one, "")]
    kept, left = again(rows)
    assert [one["mutant"] for one in kept] == [killed.name, claimed_one.name]
    like_it = [
        o for o in mutants_of("msa.packing") if (o.source, o.what) == (moved.source, moved.what)
    ]
    assert left == [survivor, *like_it]
    twins = [one for one in mutants_of("msa.padding") if one.source.startswith("totals = ")]
    first, second = (one for one in twins if one.what == "1 -> 2")
    shifted = {**row(first, ""), "mutant": "msa.padding:1:999"}
    assert again([shifted, shifted]) == ([], [first, second])


def test_results_of_something_else_are_refused(tmp_path, capsys):
    path = tmp_path / "other.jsonl"
    path.write_text('{"series": "speed/decode"}\n')
    argv = ["mutants", "--out", str(tmp_path / "run"), "--again", str(path)]
    assert cli.main(argv) == cli.ERROR_EXIT
    assert "wanted results of mutants" in capsys.readouterr().err
    assert cli.main([*argv[:-1], str(tmp_path / "none")]) == cli.ERROR_EXIT
    assert "none" in capsys.readouterr().err


@pytest.mark.slow
def test_results_are_kept_and_gone_on_with(capsys, tmp_path):
    out = tmp_path / "run"
    common = ["mutants", "--module", "msa.packing", "--seed", "3", "--out", str(out), "--json"]
    assert cli.main([*common, "--count", "1"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["total"] == 1
    assert cli.main([*common, "--count", "1"]) == cli.ERROR_EXIT
    with (out / "mutants.jsonl").open("a") as file:
        file.write('{"mutant": "torn')
    capsys.readouterr()
    assert cli.main([*common, "--count", "1", "--resume"]) == 0
    assert json.loads(capsys.readouterr().out) == first
