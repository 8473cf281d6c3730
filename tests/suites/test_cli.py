from __future__ import annotations

import json

import pytest

from msa_suites import cli


def run(capsys, *argv):
    try:
        code = cli.main(argv)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"msa-bench {command}" in out


def test_cost_json_has_the_headline(capsys):
    code, out, err = run(capsys, "cost", "--json", "--lengths", "4096", "1048576")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["ceiling"] == 32
    assert round(document["break_even"]) == 4228
    assert [round(row["ratio"], 3) for row in document["rows"]] == [0.970, 28.444]
    assert set(document["rows"][0]) >= {"length", "dense_flops", "msa_flops", "ratio"}


def test_cost_table_and_roofline(capsys):
    code, out, _ = run(capsys, "cost", "--flops-per-second", "8e14", "--bytes-per-second", "3e12")
    assert code == 0
    assert "28.444" in out
    assert "compute" in out


def test_a_fault_of_ours_is_no_verdict(capsys):
    code, out, err = run(capsys, "cost", "--lengths", "9" * 400)
    assert (code, out) == (2, "")
    assert "cost: internal error, no verdict: OverflowError" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["cost", "--lengths", "0"], "wanted an int above 0, got 0"),
        (["cost", "--lengths", "many"], "wanted an int above 0, got 'many'"),
        (["cost", "--hq", "6"], "multiple of k's 4, got 6"),
        (["cost", "--flops-per-second", "1e12"], "wanted both or neither"),
        (["check", "--memory", "much"], "wanted a number of GiB above 0, got 'much'"),
        (["check", "--memory", "0"], "wanted a number of GiB above 0, got '0'"),
        (["costs"], "invalid choice: 'costs'"),
        ([], "the following arguments are required: COMMAND"),
        (["list", "implementation"], "implementations"),
        (["train", "--out", "x", "--resume"], "wanted a checkpoint"),
        (["train", "--out", "x", "--route", "pt", "--start", "y"], "wanted none for route pt"),
        (["train", "--out", "x", "--start", "no/such/dir"], "wanted a model directory"),
        (["train", "--out", "x", "--route", "cpt", "--plain-start"], "wanted no model"),
        (["train", "--out", "x", "--text", "tests/msa"], "wanted at least 64 KiB"),
    ],
)
def test_bad_input_is_one_clear_error(capsys, argv, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert out == ""
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("result", "code"),
    [(0, 0), (1, 1), (2, 125), (3, 125), (4, 125), (RuntimeError("no module"), 125),
     (ZeroDivisionError(), 125), (KeyboardInterrupt(), 130),
     # Of the base's judge, which is handed the gate.
     (SystemExit(1), 1), (SystemExit(2), 125), (SystemExit(-9), 125)],
)  # fmt: skip
def test_a_bisection_skips_what_is_no_answer(capsys, monkeypatch, result, code):
    from msa_suites.commands import gate

    def run_gate(_args):
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(gate, "run", run_gate)
    assert run(capsys, "gate", "--bisect")[0] == code
    plain = {125: 2, 130: 2}.get(code, code) if not isinstance(result, int) else result
    plain = result.code if isinstance(result, SystemExit) else plain
    assert run(capsys, "gate")[0] == plain


def test_a_wrong_command_line_ends_a_bisection(capsys):
    code, _, err = run(capsys, "gate", "--bisect", "--profile", "quickest")
    assert code == 130  # git takes 2 for a bad commit, and any of 128 and more for the end
    assert "quickest" in err
    assert run(capsys, "gate", "--profile", "quickest")[0] == 2
