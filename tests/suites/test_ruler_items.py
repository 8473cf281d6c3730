"""Folders of items: made once, gone on with, checked, and measured on a model."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from msa_suites.cli import main
from msa_suites.commands.own_items import msa_settings
from msa_suites.models.attention import MsaSettings
from msa_suites.models.loading import EMBEDDED
from msa_suites.quality import evaluate as embedded_items
from msa_suites.quality.errors import ItemsError, QualityInvalid
from msa_suites.ruler import evaluate as evaluating
from msa_suites.ruler import sources
from msa_suites.ruler.evaluate import evaluate_kept
from msa_suites.ruler.fitting import FitError
from msa_suites.ruler.kept import check_folder, load_kept, read_folder
from msa_suites.ruler.sources import SourceError, find_questions
from msa_suites.ruler.texts import Windows, find_text
from msa_suites.ruler.tokens import Counter, load_tokenizer

_TEXT = "It was a quiet day, and nothing of note had happened since the morning.\n" * 400
_SQUAD = {
    "data": [
        {
            "title": f"t{i}",
            "paragraphs": [
                {
                    "context": f"Of the town number {i} it is told that its mayor is called M{i}.",
                    "qas": [
                        {
                            "question": f"Who is the mayor of town {i}?",
                            "is_impossible": False,
                            "answers": [{"text": f"M{i}"}, {"text": f"Mayor M{i}"}],
                        }
                    ],
                }
            ],
        }
        for i in range(60)
    ]
}
_HOTPOT = [
    {
        "question": f"Where is thing {i}?",
        "answer": f"Place {i}",
        "context": [[f"T{i}", ["At ", f"{i}."]]],
    }
    for i in range(60)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Needles and plain text for the embedded model."""
    where = tmp_path_factory.mktemp("items")
    (where / "text.txt").write_text(_TEXT)
    out = where / "kept"
    assert _make(out, "ruler_fwe", "text_perplexity", "text_tail_nll") == 0
    return out


def _make(out: Path, *tasks: str, lengths: str = "3072 3584", more: tuple[str, ...] = ()) -> int:
    named = [word for task in tasks for word in ("--task", task)]
    text = ("--text", str(out.parent / "text.txt")) if (out.parent / "text.txt").exists() else ()
    where = [
        "items",
        "--out",
        str(out),
        "--tokenizer",
        str(EMBEDDED),
        "--lengths",
        *lengths.split(),
    ]
    return main([*where, "--samples", "2", *named, *text, *more])


def test_a_folder_says_what_it_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = check_folder(folder)
    assert kept.tasks == ("ruler_fwe", "text_perplexity", "text_tail_nll")
    assert kept.lengths("text_tail_nll") == [3072, 3584]
    count = Counter(load_tokenizer(str(EMBEDDED)))
    for item in load_kept(folder, "ruler_fwe"):
        read = count([f"{item['input']} {item['gen_prefix']}"])[0]
        assert read == item["length"] <= item["max_length"] - 50
        assert all(output in item["input"] for output in item["outputs"])
    assert main(["list", "tasks"]) == 0
    assert "ruler_vt" in capsys.readouterr().out


def test_the_tail_is_the_same_after_every_context(folder: Path) -> None:
    items = load_kept(folder, "text_tail_nll")
    answers = {one["index"]: set[str]() for one in items}
    for one in items:
        answers[one["index"]].add(one["answer"])
        assert _TEXT.find(one["prompt"] + one["answer"]) >= 0
        assert not one["prompt"][-1].isspace()
        assert one["max_length"] - 60 < one["length"] <= one["max_length"]
    assert [len(of) for of in answers.values()] == [1, 1]


def test_what_is_there_is_not_made_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(_TEXT)
    out = tmp_path / "kept"
    shutil.copytree(folder, out)
    before = {one.name: one.stat().st_mtime_ns for one in out.glob("*.gz")}
    torn = out / "ruler_fwe-3584.jsonl.gz"
    whole = gzip.decompress(torn.read_bytes())
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(ItemsError, match=r"ruler_fwe-3584.jsonl.gz is corrupt"):
        check_folder(out)
    assert _make(out, "ruler_fwe", "text_perplexity", "text_tail_nll", "ruler_vt") == 0
    after = {one.name: one.stat().st_mtime_ns for one in out.glob("*.gz")}
    assert {name for name in after if after[name] != before.get(name)} == {
        torn.name,
        "ruler_vt-3072.jsonl.gz",
        "ruler_vt-3584.jsonl.gz",
    }
    assert gzip.decompress(torn.read_bytes()) == whole, "the same seed makes the same items"


def test_a_changed_item_is_found(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    shutil.copytree(folder, out)
    file = out / "ruler_fwe-3072.jsonl.gz"
    changed = gzip.decompress(file.read_bytes()).replace(b"coded", b"cited", 1)
    file.write_bytes(gzip.compress(changed))
    with pytest.raises(ItemsError, match=r"wanted content with sha256 .* got "):
        check_folder(out)
    run = ["check", "--suite", "quality", "--items", str(out), "--out", str(tmp_path / "run")]
    assert main(run) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "niah_single"], "--task: wanted one of .*did you mean niah_single"),
        (["--task", "text_perplexity"], "--text: wanted a text for text_perplexity, got none"),
        (["--lengths", "64"], "--lengths: wanted room for ruler_fwe, .*got 64"),
        (["--lengths", "4096", "4096"], "--lengths: wanted each name once"),
        (
            ["--haystack", "nowhere.txt", "--task", "niah_single_2"],
            "--haystack: wanted a text file in UTF-8",
        ),
        (["--task", "ruler_qa_squad", "--squad", "no.json"], "--squad: wanted a text file"),
        (["--tokenizer", "./nothing"], "--tokenizer: wanted a model directory or hub id"),
        (["--seed", "1"], "--out: the items in .* were made with seed 0, got 1"),
    ],
)
def test_wrong_wishes_are_refused_by_name(
    arguments: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = folder if "--seed" in arguments else tmp_path / "kept"
    chosen = [] if "--task" in arguments else ["--task", "ruler_fwe"]
    first = ["items", "--out", str(out), "--tokenizer", str(EMBEDDED), "--samples", "2"]
    assert main([*first, *chosen, *arguments]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    assert _make(tmp_path, "ruler_fwe") == 2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.txt", "run.lock"]


def test_questions_come_from_local_files(tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text(json.dumps(_SQUAD))
    (tmp_path / "hotpot.json").write_text(json.dumps(_HOTPOT))
    files = ("--squad", str(tmp_path / "squad.json"), "--hotpotqa", str(tmp_path / "hotpot.json"))
    out = tmp_path / "kept"
    assert _make(out, "ruler_qa_squad", "ruler_qa_hotpot", lengths="3072", more=files) == 0
    for item in load_kept(out, "ruler_qa_squad"):
        assert set(item["outputs"]) == {f"M{item['index']}", f"Mayor M{item['index']}"}
        assert item["outputs"][0] in item["input"]
    assert load_kept(out, "ruler_qa_hotpot")[1]["outputs"] == ["Place 1"]


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"rows": []}')
    with pytest.raises(SourceError, match=r"--squad: wanted a file of the data set, got KeyError"):
        find_questions("squad", tmp_path / "x.json")


def test_a_data_set_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(sources.lm_eval_ruler("qa_utils"), "download_json", unreachable)
    with pytest.raises(SourceError, match=r"--hotpotqa: wanted a network, or its file .*no route"):
        find_questions("hotpotqa", None)


def _measured(folder: Path, task: str, **others: Any) -> list[dict[str, Any]]:
    return evaluate_kept(
        "", items=str(folder), task=task, settings={"topk": 4, "block": 32}, **others
    )


def test_likelihoods_are_measured_for_both_attentions(folder: Path) -> None:
    rows = _measured(folder, "text_tail_nll", indices=[0, 2])
    assert [(row["attention"], row["metric"]) for row in rows] == [
        (attention, f"nll_{length}") for attention in ("dense", "msa") for length in (3072, 3584)
    ]
    assert all(0 < row["value"] < 5 for row in rows)


def test_an_answer_is_judged_output_by_output(folder: Path) -> None:
    rows = _measured(folder, "ruler_fwe", indices=[1], attentions=["msa"])
    (item,) = {row["cluster"] for row in rows}
    assert item == load_kept(folder, "ruler_fwe")[1]["item"]
    assert [(row["item"], row["metric"]) for row in rows] == [
        (f"{item}/{i}", "recall_3072") for i in range(3)
    ]


def test_items_of_another_tokenizer_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    shutil.copytree(folder, out)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["settings"]["tokenizer"] = "0" * 64
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(QualityInvalid, match=r"wanted some that were fitted to the model's"):
        _measured(out, "text_perplexity", indices=[0])


def test_prompts_that_would_be_cut_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "kept"
    assert _make(out, "ruler_fwe", lengths="40960") == 0
    with pytest.raises(QualityInvalid, match=r"wanted at most \d+ tokens .*it would be cut"):
        _measured(out, "ruler_fwe", indices=[0])


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ItemsError, match=r"wanted a folder that `msa-bench items` has written"):
        read_folder(tmp_path)


def test_windows_go_around_a_word_that_is_too_long() -> None:
    text = "few words " * 200 + "x" * 5000 + " and more words" * 400
    made = list(Windows(text, Counter(load_tokenizer(str(EMBEDDED)))).perplexity(1024, most=9))
    assert len(made) > 4
    for one in made:
        assert one.tokens <= 1024
        assert text.find(one.prompt + one.answer) >= 0
        assert 200 < len(one.answer) <= 256
    with pytest.raises(FitError, match="--text: wanted text for two windows of 1024 tokens"):
        list(Windows("too short", Counter(load_tokenizer(str(EMBEDDED)))).perplexity(1024, most=9))
    with pytest.raises(FitError, match="--lengths: wanted at least 512 for text, got 300"):
        list(Windows(text, Counter(load_tokenizer(str(EMBEDDED)))).tail([300, 1024], most=9))


@pytest.mark.slow  # the needles' modules take ten seconds to import
def test_essays_out_of_reach_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(sources.lm_eval_ruler("prepare_niah"), "get_haystack", unreachable)
    with pytest.raises(SourceError, match=r"--haystack essays: wanted the data set .*`topics`"):
        sources.find_haystack("essays")


def test_a_task_file_that_is_missing_is_found_and_written_again(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "kept"
    shutil.copytree(folder, out)
    file = out / "tasks" / "ruler_fwe.yaml"
    whole = file.read_text()
    file.write_text(whole.replace("max_gen_toks: 50", "max_gen_toks: 5"))
    with pytest.raises(ItemsError, match=r"ruler_fwe.yaml .* got another text"):
        check_folder(out)
    file.unlink()
    with pytest.raises(ItemsError, match=r"ruler_fwe.yaml .* got no such file"):
        check_folder(out)
    assert _make(out, "ruler_fwe") == 0
    assert file.read_text() == whole


def test_an_attempt_that_made_nothing_leaves_the_folder_free(tmp_path: Path) -> None:
    out = tmp_path / "kept"
    assert _make(out, "ruler_fwe", lengths="64") == 2
    assert _make(out, "ruler_fwe", lengths="3072", more=("--seed", "4")) == 0


def test_a_length_beyond_the_others_makes_all_tails_again(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(_TEXT)
    out = tmp_path / "kept"
    for lengths in ("1024 2048", "1536", "3072"):
        assert _make(out, "text_tail_nll", lengths=lengths) == 0
        answers: dict[int, set[str]] = {}
        for one in load_kept(out, "text_tail_nll"):
            answers.setdefault(one["index"], set()).add(one["answer"])
        assert all(len(of) == 1 for of in answers.values())
    assert read_folder(out).lengths("text_tail_nll") == [1024, 1536, 2048, 3072]


def test_equal_items_have_hashes_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text(json.dumps(_SQUAD))
    out = tmp_path / "kept"
    more = ("--squad", str(tmp_path / "squad.json"))
    assert _make(out, "ruler_qa_squad", lengths="8192 16384", more=more) == 0
    items = load_kept(out, "ruler_qa_squad")
    assert len({one["item"] for one in items}) == len(items) == 4
    assert {one["input"] for one in items[:2]} == {one["input"] for one in items[2:]}
    other = json.loads(json.dumps(_SQUAD).replace("mayor", "baker"))
    (tmp_path / "squad.json").write_text(json.dumps(other))
    assert _make(out, "ruler_qa_squad", lengths="4096", more=more) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topk=abc", "--msa: wanted topk as an int from 1, got 'abc'"),
        ("topk=0", "--msa: wanted topk as an int from 1, got '0'"),
        ("block=-3", "--msa: wanted block as an int from 1, got '-3'"),
        ("scorer=zzz", "--msa: wanted a scorer of max, .*got 'zzz'"),
        ("dense_layers=a", "--msa: wanted dense_layers as 0[+]2, got 'a'"),
        ("topq=1", "--msa: settings: wanted one of topk, got 'topq'"),
        ("topk", "--msa: wanted name=value"),
        ("topk=1,topk=2", "--msa: wanted name=value, each name once, got 'topk=2'"),
    ],
)
def test_wrong_settings_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msa_settings(text)


def test_settings_are_read() -> None:
    assert msa_settings("topk=8,scorer=mean,dense_layers=0+2") == {
        "topk": 8,
        "scorer": "mean",
        "dense_layers": "0+2",
    }
    assert msa_settings(None) == {}


def test_a_model_with_msa_of_its_own_runs_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "own_settings", lambda _: MsaSettings())
    with pytest.raises(QualityInvalid, match=r"implementation: wanted transformers, .*'triton'"):
        evaluate_kept(
            "",
            items=str(folder),
            task="text_perplexity",
            indices=[0],
            settings={"implementation": "triton"},
        )
    monkeypatch.setattr(embedded_items, "own_settings", lambda _: MsaSettings())
    with pytest.raises(QualityInvalid, match=r"items: wanted some of the model's own tokenizer"):
        embedded_items.evaluate("", tasks=["msa_perplexity"], limit=1)


def test_a_data_set_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def loaded(*args: object, **more: object) -> dict[str, list[str]]:
        asked.append((*args, more))
        return {"text": ["one", "two"]}

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    assert find_text("org/books:small:train") == "one\ntwo"
    assert find_text("org/books") == "one\ntwo"
    assert asked == [
        ("org/books", "small", {"split": "train"}),
        ("org/books", None, {"split": "test"}),
    ]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"body": []})
    with pytest.raises(
        SourceError, match=r"--text: wanted a file, or a data set .*KeyError: 'text'"
    ):
        find_text("org/books")
    with pytest.raises(SourceError, match=r"--text: wanted a text file in UTF-8, got nothing.txt"):
        find_text("nothing.txt")
