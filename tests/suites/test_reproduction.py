from __future__ import annotations

import json
import math
import subprocess

import pytest
import torch

from msa_reports.reproduction.document import SECTIONS as SHOWN
from msa_suites import cli
from msa_suites.reproduction import SECTIONS, clock, picking, running
from msa_suites.reproduction.estimates import mean, proportion
from msa_suites.reproduction.setup import CannotRun, Setup

pytestmark = pytest.mark.whole

#: Sections with a test of their own.
ELSEWHERE = ("identity", "clock", "blindness", "routes", "ablations")
QUICK = ["reproduce", "--quick", "--threads", "1"]


def run(out, *more):
    return cli.main([*QUICK, "--out", str(out), *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model_dir):
    """The sections that have no test of their own, measured once."""
    out = tmp_path_factory.mktemp("reproduction") / "out"
    names = [name for name in SECTIONS if name not in ELSEWHERE]
    model = ["--model", str(tiny_model_dir)]
    assert run(out, *model, *(word for name in names for word in ("--only", name))) == 0
    return out, names, model


def test_what_is_measured_is_what_is_shown():
    assert list(SECTIONS) == list(SHOWN)


def test_one_command_leaves_a_document_with_plots(whole):
    out, names, _ = whole
    text = out.with_suffix(".md").read_text()
    assert "28.44" in text  # equation 12 at 2^20
    assert f"msa-bench reproduce --out {out.name} --model tiny" in text
    assert "Quick sizes" in text
    assert str(out.parent.parent) not in text
    for name in names:
        document = json.loads((out / f"data/{name}.json").read_text())
        assert document["result"]
        assert document["why_not"] == ""
        assert {"torch", "model", "device", "quick"} <= document["setup"].keys()
    assert {"cost.svg", "mass.svg", "budget-recall.svg", "scorers.svg"} <= {
        one.name for one in out.glob("*.svg")
    }
    assert list(out.glob("selection-*.svg"))


def test_what_is_there_is_not_measured_again(whole, monkeypatch, capsys):
    out, _, model = whole
    before = (out / "data/cost.json").read_bytes()

    assert run(out, "--only", "cost") == 2
    assert "go on with --resume, or delete it" in capsys.readouterr().err
    monkeypatch.setattr(running, "_run", None)
    assert run(out, *model, "--only", "cost", "--resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["failed"] == {}
    assert (out / "data/cost.json").read_bytes() == before


def test_another_set_up_is_refused_by_name(whole, capsys):
    out, _, _ = whole
    assert run(out, "--only", "cost", "--resume", "--seed", "3") == 2
    told = capsys.readouterr().err
    assert "model: {'name': 'tiny" in told
    assert "wanted section cost measured with the same set-up" in told
    assert "seed: 0, now 3" in told


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other/1"}'])
def test_a_broken_file_is_named(tmp_path, capsys, text):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/cost.json").write_text(text)
    assert run(tmp_path, "--only", "cost", "--resume") == 2
    assert "data/cost.json: wanted a recorded section" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--only", "scorer"], "did you mean scorers"),
        (["--only", "cost", "--only", "cost"], "wanted each name once"),
        (["--only", "cost", "--model", "/nowhere/at-all"], "wanted a model directory"),
    ],
)
def test_bad_arguments_are_errors(tmp_path, capsys, more, told):
    assert run(tmp_path / "out", *more) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (CannotRun("needs a trained model"), 0, "needs a trained model"),
        (RuntimeError("out of memory"), 2, "RuntimeError: out of memory"),
        (None, 2, "not JSON compliant"),
    ],
)
def test_a_section_that_cannot_run_does_not_stop_the_rest(tmp_path, monkeypatch, error, code, told):
    from msa_suites.reproduction import cost

    def fail(_):
        if error is not None:
            raise error
        return {"seconds": math.nan}

    monkeypatch.setattr(cost, "measure", fail)
    out = tmp_path / "out"
    assert run(out, "--only", "cost", "--only", "assumptions") == code
    text = out.with_suffix(".md").read_text()
    assert "**Not measured.**" in text
    assert told in text
    assert "Which blocks are forced?" in text
    monkeypatch.undo()
    # Nothing was measured, so there is nothing to take over.
    assert run(out, "--only", "cost", "--resume") == 0
    assert "28.44" in out.with_suffix(".md").read_text()


def test_identity_and_clock_run(tmp_path):
    out = tmp_path / "out"
    assert run(out, "--only", "identity", "--only", "clock") == 0
    identity = json.loads((out / "data/identity.json").read_text())["result"]
    for row in identity["random"]:
        assert row["keep_all"] < 1e-5 < row["half"]
    for row in identity["model"]:
        assert row["keep_all"] < 1e-3 < row["one_fewer"]
    timed = json.loads((out / "data/clock.json").read_text())["result"]["rows"]
    for row in timed:
        assert {len(calls) for calls in row["seconds"].values()} == {row["turns"]}
        dense, low = row["seconds"]["dense"], row["seconds"]["low"]
        ratios = [d / m for d, m in zip(dense, low, strict=True)]
        assert min(ratios) <= row["ratio"]["low"]["value"] <= max(ratios)


def ratios(*values):
    return [
        {"length": 1024 << i, "ratio": {"low": {"value": value}}} for i, value in enumerate(values)
    ]


def test_the_crossover_is_the_last_passage_through_one():
    assert clock.crossover(ratios(0.5, 2.0), "low") == pytest.approx(1024 * math.sqrt(2))
    # What pays at one length and not at the next has not crossed yet.
    assert clock.crossover(ratios(2.0, 0.5, 2.0), "low") == pytest.approx(2048 * math.sqrt(2))
    assert clock.crossover(ratios(0.5, 0.9), "low") is None
    assert clock.crossover(ratios(2.0, 0.5), "low") is None
    assert clock.crossover(ratios(1.5, 2.0), "low") is None


def test_estimates_have_intervals():
    found = mean([0.1, 0.2, 0.3, 0.4], ["a", "a", "b", "b"], seed=0)
    assert found["value"] == pytest.approx(0.25)
    assert found["low"] < 0.25 < found["high"]
    assert mean([1.0, 2.0], ["a", "a"], seed=0)["low"] is None
    none = proportion([False] * 24, ["a"] * 12 + ["b"] * 12, seed=0)
    assert (none["value"], none["low"], none["n"]) == (0.0, 0.0, 24)
    assert 0.05 < none["high"] < 0.2
    # Two contexts that disagree whole are two observations, not 24.
    split = proportion([True] * 12 + [False] * 12, ["a"] * 12 + ["b"] * 12, seed=0)
    assert (split["low"], split["high"]) == (0.0, 1.0)


def record(chosen, positions, block=4):
    """A record of one layer: ``chosen`` blocks of each query and group."""

    class Record:
        layer = 0
        selection = torch.tensor(chosen, dtype=torch.int32)

    Record.positions, Record.block = torch.tensor(positions), block
    return Record


def test_what_the_slots_went_to():
    # Two queries of block 9, own block forced; group 0: first and previous; group 1: 4 and 5.
    found = picking.picks(
        record([[[9, 0, 8], [9, 4, 5]], [[9, 0, 8], [9, 4, 6]]], [36, 37]), seed=0
    )
    first, second = found.groups
    assert (first["first"], first["diagonal"], first["stripes"]) == (1.0, 0.5, 0.0)
    assert first["reach"] == pytest.approx((1 + 1 / 9) / 2)
    assert (second["first"], second["diagonal"], second["stripes"]) == (0.0, 0.0, 1.0)
    # Both queries keep block 4, five before their own, and one of them each of two others.
    assert second["bands"] == 1.0
    assert first["bands"] == 0.0
    assert first["chance_first"] == pytest.approx(2 / 9)
    assert found.distances["groups"] == 1.0
    # Group 0 repeats itself; group 1 shares one block of three.
    assert found.distances["neighbours"] == pytest.approx((0 + 2 / 3) / 2)
    assert 0.5 < found.distances["chance"] <= 1.0


def test_one_group_has_no_other_to_differ_from():
    found = picking.picks(record([[[9, 0, 8]], [[9, 0, 7]]], [36, 37]), seed=0)
    assert "groups" not in found.distances


def test_jaccard_of_equal_disjoint_and_empty_sets():
    a, b = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    none = torch.zeros_like(a)
    assert picking.jaccard(a, a).item() == 0
    assert picking.jaccard(a, b).item() == 1
    assert picking.jaccard(none, none).item() == 0


def test_a_set_up_without_progress_is_silent(tmp_path, capsys):
    Setup(out=tmp_path).say("nobody hears it")
    assert capsys.readouterr() == ("", "")


def test_what_the_run_itself_writes_is_no_change_of_the_code(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "code").write_text("1")
    git("add", ".")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "c")
    monkeypatch.setattr("msa_suites.plan.here", lambda: tmp_path)
    out = tmp_path / "published" / "r"
    out.mkdir(parents=True)
    (out / "x.svg").write_text("")
    out.with_suffix(".md").write_text("")
    assert running._commit(out)["dirty"] is False
    assert running._commit(tmp_path / "elsewhere")["dirty"] is True
    (tmp_path / "code").write_text("2")
    assert running._commit(out)["dirty"] is True
    assert running._commit(tmp_path.parent / "outside")["dirty"] is True
