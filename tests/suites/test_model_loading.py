from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file

from msa_suites.models.loading import EMBEDDED, load_model

DTYPES = ("float32", "float64", "float32", "bfloat16")


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "copy")


def rewrite(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_whole_model_loads(copy):
    model, tokenizer = load_model(str(copy), dtype="bfloat16")
    assert str(model.dtype) == "torch.bfloat16"
    assert not model.training
    assert tokenizer.encode("ab") == [97, 98]


@pytest.mark.parametrize("path", ["/no/such/place", "./nothing", "nothing"])
def test_a_missing_directory_is_named(path):
    with pytest.raises(FileNotFoundError, match=f"wanted a model directory, got .*{path[-5:]}"):
        load_model(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.replace("model", "")):
        load_model(str(copy))


def test_a_broken_config_is_named(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"wanted JSON in config\.json"):
        load_model(str(copy))


def test_truncated_weights_are_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="wanted a whole model"):
        load_model(str(copy))


def test_missing_weights_are_refused(copy):
    rewrite(copy, lambda tensors: tensors.pop("model.layers.1.self_attn.q_proj.weight"))
    with pytest.raises(ValueError, match=r"missing_keys.*layers\.1\.self_attn\.q_proj\.weight"):
        load_model(str(copy))


def test_weights_of_another_shape_are_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(ValueError, match="wanted"):
        load_model(str(copy))


def test_unknown_dtype_lists_the_known_ones(copy):
    with pytest.raises(ValueError, match=r"dtype: wanted one of float32, .* got 'int8'"):
        load_model(str(copy), dtype="int8")


@pytest.mark.parametrize("device", ["gpu", "cuda:99x"])
def test_unknown_device_is_refused(copy, device):
    with pytest.raises(ValueError, match="device: wanted cpu or cuda, got"):
        load_model(str(copy), device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(copy):
    with pytest.raises(ValueError, match="got 'cuda' without CUDA"):
        load_model(str(copy), device="cuda")


def test_threads_load_whole_models_at_once():
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda dtype: load_model(str(EMBEDDED), dtype=dtype)[0], DTYPES))
    assert [str(model.dtype) for model in models] == [f"torch.{dtype}" for dtype in DTYPES]
    assert all(model.lm_head.weight is model.get_input_embeddings().weight for model in models)


SECOND_THREAD = """
import threading, time
import torch
threading.Thread(target=lambda: __import__("transformers")).start()
time.sleep(0.3)
from msa_suites.method.oracle_model import logits
print(logits([[1, 2, 3]], block=16, topk=1, sink_blocks=0)[0].shape[0])
"""


def test_a_second_thread_finds_transformers_whole():
    """While the first one still loads it, and transformers replaces its own module."""
    command = [sys.executable, "-c", SECOND_THREAD]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "3", ran.stderr[-400:]
