from __future__ import annotations

import json
import subprocess
import sys

import pytest
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from msa_suites.models.attention import MsaSettings
from msa_suites.models.lm import MsaLM
from msa_suites.models.scoring import Request
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.evaluate import evaluate, run_task
from msa_suites.quality.items import NLL_TASKS, RECALL_TASKS, TASKS, load_items
from msa_suites.quality.lm_tasks import TASK_FILES
from msa_suites.quality.quiet import WithoutBars
from msa_suites.quality.samples import series_name, to_samples


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return MsaLM(str(tiny_model_dir), attention="dense")


@pytest.fixture
def heard(model, monkeypatch):
    """Prompts and answers that lm-eval hands to the model, which guesses without reading."""
    texts = []

    def guess(requests, **_):
        texts.extend(text for text, _, _ in requests)
        return [(-2.0, True)] * len(requests)

    monkeypatch.setattr(model, "_loglikelihood_tokens", guess)
    return texts


def test_the_class_is_registered():
    assert get_model("msa") is MsaLM


def test_every_task_has_a_versioned_file():
    manager = TaskManager(include_path=str(TASK_FILES), include_defaults=False)
    assert sorted(manager.all_tasks) == sorted(TASKS)
    for name, task in manager.load(list(TASKS))["tasks"].items():
        assert task.VERSION == 1.0
        assert len(task.eval_docs) == len(load_items(name))


@pytest.mark.parametrize("task", TASKS)
def test_the_model_hears_the_items_to_the_byte(model, heard, task):
    rows = run_task(model, task, profile="quick")
    items = load_items(task)
    assert heard == [(item.prompt, item.answer) for item in items]
    assert list(dict.fromkeys(row["item"] for row in rows)) == [item.hash for item in items]
    clusters = {item.hash: item.cluster for item in items}
    assert all(clusters[row["item"]] == row["cluster"] for row in rows)


def test_metrics_of_recall_and_nll(model, heard):
    del heard
    for task in RECALL_TASKS:
        rows = run_task(model, task, profile="quick", limit=1)
        answer = load_items(task)[0].answer
        assert {row["metric"]: row["value"] for row in rows} == {
            "recall": 1.0,
            "nll": 2.0 / len(answer),
        }
    assert {row["metric"] for row in run_task(model, "msa_tail_nll", profile="quick")} == {
        "nll_512",
        "nll_2048",
        "nll_4096",
    }
    assert {row["metric"] for row in run_task(model, "msa_perplexity", profile="quick")} == {"nll"}


def test_evaluate_gives_paired_rows(tiny_model_dir):
    seen = []
    rows = evaluate(
        str(tiny_model_dir),
        settings={"topk": 4, "block": 32},
        tasks=["msa_facts", "msa_perplexity"],
        limit=2,
        on_task=lambda *done: seen.append(done),
    )
    assert seen == [
        (task, attention)
        for attention in ("dense", "msa")
        for task in ("msa_facts", "msa_perplexity")
    ]
    keys = [(r["task"], r["metric"], r["attention"], r["item"]) for r in rows]
    assert len(set(keys)) == len(keys) == 2 * (2 * 2 + 2)
    values = {key: row["value"] for key, row in zip(keys, rows, strict=True)}
    pairs = [(v, values[t, m, "msa", i]) for (t, m, a, i), v in values.items() if a == "dense"]
    assert any(dense != sparse for dense, sparse in pairs)
    assert json.loads(json.dumps(rows)) == rows


def test_samples_name_series_and_units(tiny_model_dir):
    del tiny_model_dir
    row = {
        "task": "msa_facts",
        "metric": "recall",
        "attention": "msa",
        "item": "aa",
        "cluster": "cc",
        "value": 1.0,
    }
    dense = {**row, "attention": "dense"}
    tail = {**row, "task": "msa_tail_nll", "metric": "nll_2048", "value": 1.5}
    samples = to_samples([row, dense, tail], subject="head", ran="msa.fast", repro="again")
    assert [(s.series, s.unit) for s in samples] == [
        ("quality/msa_facts/recall", "recall"),
        ("quality/msa_facts/recall/dense", "recall"),
        ("quality/msa_tail_nll/2048/nll", "nats"),
    ]
    assert {(s.suite, s.subject, s.item, s.cluster, s.ran) for s in samples} == {
        ("quality", "head", "aa", "cc", "msa.fast")
    }
    with pytest.raises(
        ValueError, match="wanted one value for item aa of quality/msa_facts/recall"
    ):
        to_samples([row, row], subject="base")
    with pytest.raises(ValueError, match="metric: wanted one of recall"):
        to_samples([{**row, "metric": "speed"}], subject="base")
    assert series_name(dense).endswith("/dense")


def test_contexts_at_the_budget_are_invalid(tiny_model_dir):
    with pytest.raises(QualityInvalid, match=r"topk \* block = 2048 tokens .* got 2048"):
        evaluate(str(tiny_model_dir), settings={"topk": 64, "block": 32}, tasks=["msa_facts"])
    with pytest.raises(QualityInvalid, match=r"msa_tail_nll, got 512"):
        evaluate(str(tiny_model_dir), settings={"topk": 4, "block": 128}, tasks=NLL_TASKS)


def test_the_model_refuses_prompts_that_say_nothing(model):
    model.attend("msa", MsaSettings(topk=4, block=32))
    model.check_request(Request((1,) * 128, (1, 1)))
    with pytest.raises(QualityInvalid, match=r"topk \* block = 128 tokens, got 128"):
        model.check_request(Request((1,) * 127, (1, 1)))
    model.attend("dense")
    model.check_request(Request((1,) * 127, (1, 1)))


def test_a_prompt_that_would_be_cut_is_refused(tiny_model_dir):
    model = MsaLM(str(tiny_model_dir), attention="dense", max_length=2050)
    with pytest.raises(QualityInvalid, match=r"at most 2050 tokens .* got 2053: it would be cut"):
        run_task(model, "msa_facts", profile="quick", limit=1)


def test_wrong_names_are_refused(tiny_model_dir):
    where = str(tiny_model_dir)
    with pytest.raises(ValueError, match="task: wanted one of msa_niah_single"):
        evaluate(where, tasks=["mmlu"])
    with pytest.raises(ValueError, match="settings: wanted one of topk, got 'top_k'"):
        evaluate(where, settings={"top_k": 4})
    with pytest.raises(ValueError, match="attention: wanted one of msa, dense, got 'eager'"):
        MsaLM(where, attention="eager")
    with pytest.raises(ValueError, match="dense_layers: wanted layers"):
        MsaSettings.from_mapping({"dense_layers": None})
    with pytest.raises(FileNotFoundError, match="wanted a model directory, got /nowhere"):
        evaluate("/nowhere", tasks=["msa_facts"])


@pytest.mark.parametrize(("given", "layers"), [(0, (0,)), ("0+2", (0, 2)), ([1], (1,)), ("", ())])
def test_dense_layers_from_a_command_line(given, layers):
    assert MsaSettings.from_mapping({"dense_layers": given}).dense_layers == layers
    settings = MsaSettings(dense_layers=layers)
    assert MsaSettings.from_mapping(settings.as_dict()) == settings


def test_only_progress_bars_are_swallowed(capsys):
    stream = WithoutBars(sys.stderr)
    for text in ("\r 10%|#  |", "\n", "a warning\n", "\r100%|###|", "\n", "\n"):
        stream.write(text)
    assert capsys.readouterr().err == "a warning\n"


@pytest.mark.slow
def test_lm_evals_own_command_line(tiny_model_dir, tmp_path):
    command = [sys.executable, "-m", "msa_suites.models.lm_eval_cli", "--model", "msa"]
    chosen = f"pretrained={tiny_model_dir},topk=4,block=32"
    rest = ["--tasks", "msa_facts", "--limit", "2", "--output_path", str(tmp_path)]
    done = subprocess.run([*command, "--model_args", chosen, *rest], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [found] = tmp_path.rglob("results*.json")
    assert set(json.loads(found.read_text())["results"]) == {"msa_facts"}
    refused = subprocess.run(
        [*command, "--model_args", f"{chosen.replace('topk=4', 'topk=65')}", *rest],
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 4, refused.stderr
    assert "INVALID: context: wanted more than topk * block = 2080 tokens" in refused.stderr
