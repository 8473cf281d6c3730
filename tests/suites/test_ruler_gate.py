"""A gate on items of one's own, as its users drive it: two implementations, one folder."""

from __future__ import annotations

import argparse
import json
import pydoc
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_m3

from msa_suites.cli import main
from msa_suites.models.loading import EMBEDDED

_GOOD = """
from msa_kernels import load

CAPABILITIES = {"dtypes": ["float32"]}
_torch = load("torch")
block_scores, select_blocks = _torch.block_scores, _torch.select_blocks
sparse_attention = _torch.sparse_attention
"""
_MEAN = (
    _GOOD
    + """

def block_scores(q_idx, k_idx, *, cu_q, cu_k, block, scale):
    from msa.scorers import find_scorer

    return find_scorer("mean")(q_idx, k_idx, cu_q=cu_q, cu_k=cu_k, block=block, scale=scale)
"""
)


def _items(where: Path, task: str, samples: int, tokenizer: Path = EMBEDDED) -> Path:
    modules = (argparse, pydoc, json)
    text = "\n".join(Path(str(one.__file__)).read_text(encoding="utf-8") for one in modules)
    (where / "text.txt").write_text(text.encode("ascii", "ignore").decode())
    out = where / "kept"
    call = ["items", "--out", str(out), "--tokenizer", str(tokenizer), "--lengths", "3072"]
    chosen = ["--task", task, "--samples", str(samples), "--text", str(where / "text.txt")]
    assert main([*call, *chosen]) == 0
    return out


def _gate(tmp_path: Path, items: Path, base: str, head: str, *more: str) -> tuple[int, Path]:
    for side, source in (("base", base), ("head", head)):
        (tmp_path / side).mkdir(exist_ok=True)
        (tmp_path / side / "mine.py").write_text(source)
    out = tmp_path / "run"
    paths = ["--base-path", str(tmp_path / "base"), "--head-path", str(tmp_path / "head")]
    call = ["gate", "--implementation", "mine", "--suite", "quality", "--items", str(items)]
    code = main(
        [*call, *paths, "--msa", "topk=4,block=32", "--threads", "1", "--out", str(out), *more]
    )
    return code, out


def _series(out: Path) -> dict[str, Any]:
    verdict = json.loads((out / "verdict.json").read_text())
    return {one["name"]: one for one in verdict["series"]}


@pytest.mark.slow
def test_a_head_that_reads_worse_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = _items(tmp_path, "text_perplexity", 40)
    code, out = _gate(tmp_path, items, _GOOD, _MEAN)
    found = _series(out)["quality/text_perplexity/3072/nll"]
    assert code == 1, capsys.readouterr().out
    assert found["verdict"] == "REGRESSION"
    assert f"--items {items} --msa topk=4,block=32" in found["repro"]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_at_its_item(tmp_path: Path) -> None:
    items = _items(tmp_path, "niah_single_1", 6)
    code, out = _gate(tmp_path, items, _GOOD, _GOOD)
    whole = (out / "samples.jsonl").read_text().splitlines()
    before = _series(out)
    # The embedded model does not know what a magic number is: no signal, and no verdict.
    assert before["quality/niah_single_1/3072/recall"]["verdict"] == "NO_SIGNAL"
    kept = len(whole) // 2  # between the two attentions of an item
    (out / "samples.jsonl").write_text("\n".join(whole[:kept]) + "\n")
    again, _ = _gate(tmp_path, items, _GOOD, _GOOD, "--resume")
    lines = (out / "samples.jsonl").read_text().splitlines()
    assert again == code
    refused, _ = _gate(tmp_path, items, _GOOD, _GOOD, "--resume", "--msa", "topk=8,block=32")
    assert refused == 2, "the same run, with other settings"
    assert lines[:kept] == whole[:kept]
    assert len(lines) == len(whole)
    assert {name: one["n"] for name, one in _series(out).items()} == {
        name: one["n"] for name, one in before.items()
    }


@pytest.mark.slow
def test_minimax_m3_is_judged_as_it_is_and_by_no_other_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_m3(tmp_path / "m3", max_position_embeddings=4096)
    items = _items(tmp_path, "text_perplexity", 2, tokenizer=model)
    call = ["check", "--suite", "quality", "--model", str(model), "--items", str(items)]
    assert main([*call, "--implementation", "transformers", "--out", str(tmp_path / "a")]) == 0
    found = _series(tmp_path / "a")
    assert found["quality/text_perplexity/3072/nll"]["verdict"] == "NEW"
    assert {one["direction"] for one in found.values()} == {"lower"}
    assert "transformers" in (tmp_path / "a" / "samples.jsonl").read_text()
    assert main([*call, "--implementation", "torch", "--out", str(tmp_path / "b")]) == 4
    assert "wanted transformers, whose sparse attention this model has" in capsys.readouterr().out
