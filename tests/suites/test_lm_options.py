"""Every option of lm-eval's own model class: honoured here, or refused by name."""

from __future__ import annotations

import inspect
import json
import shutil

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tiny_models import save_family
from transformers import AutoModelForCausalLM, AutoTokenizer, dynamic_module_utils

from msa_suites.models import options
from msa_suites.models.lm import MsaLM
from msa_suites.models.loading import load_model
from msa_suites.models.options import sort_options

OWN = {"pretrained", "device", "dtype", "batch_size"}


@pytest.fixture(scope="module")
def bfloat(tmp_path_factory):
    """A checkpoint whose own dtype is bfloat16."""
    where = save_family("llama", tmp_path_factory.mktemp("bfloat"))
    network, tokenizer = load_model(str(where), dtype="bfloat16")
    there = tmp_path_factory.mktemp("saved")
    network.save_pretrained(there)
    tokenizer.save_pretrained(there)
    return there


def build(where, **how):
    return MsaLM(str(where), attention="dense", **how)


def test_every_option_of_hflm_is_known():
    known = options._SETTINGS | options._LOADING | options._HFLM | options._WITHOUT_EFFECT
    names = set(inspect.signature(HFLM.__init__).parameters) - {"self", "kwargs"}
    assert names <= known | options._REFUSED.keys() | OWN


def test_what_hflm_has_by_default_is_accepted():
    given = {
        name: parameter.default
        for name, parameter in inspect.signature(HFLM.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty and name not in OWN
    }
    sorted_out = sort_options(given)
    assert sorted_out.settings == {}
    assert sorted_out.loading == {
        "revision": "main",
        "subfolder": "",
        "trust_remote_code": False,
        "use_fast_tokenizer": True,
    }
    assert sorted_out.hflm == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backend", "seq2seq"),
        ("parallelize", True),
        ("tp_plan", "auto"),
        ("max_memory_per_gpu", "10GiB"),
        ("max_cpu_memory", "10GiB"),
        ("offload_folder", "elsewhere"),
        ("peft", "adapter"),
        ("delta", "weights"),
        ("autogptq", True),
        ("gptqmodel", True),
        ("gguf_file", "a.gguf"),
        ("load_in_8bit", True),
        ("load_in_4bit", True),
        ("quantization_config", {}),
        ("attn_implementation", "eager"),
        ("truncation", True),
        ("logits_cache", False),
        ("softmax_dtype", "float16"),
        ("mixed_precision_dtype", "bfloat16"),
    ],
)
def test_an_option_that_is_not_honoured_is_refused(tiny_model_dir, name, value):
    assert name in options._REFUSED
    with pytest.raises(ValueError, match=f"^{name}: wanted .*, because .*, got "):
        build(tiny_model_dir, **{name: value})


def test_an_unknown_option_is_refused(tiny_model_dir):
    with pytest.raises(ValueError, match="model_args: wanted one of chunk, got 'chunks'"):
        build(tiny_model_dir, chunks=5)
    with pytest.raises(ValueError, match=r"model_args: wanted one of .*, got 'cache_dir'"):
        build(tiny_model_dir, cache_dir="x")


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", torch.bfloat16, "float32", "float64"])
def test_dtype(bfloat, dtype):
    wanted = "bfloat16" if dtype == "auto" else str(dtype).removeprefix("torch.")
    assert str(build(bfloat, dtype=dtype).model.dtype) == f"torch.{wanted}"


def test_angles_stay_in_float32(bfloat):
    """In bfloat16 a position of 4,096 would be turned by a wrong angle."""
    network, _ = load_model(str(bfloat), dtype="bfloat16")
    plain = AutoModelForCausalLM.from_pretrained(bfloat, dtype="bfloat16").eval()
    assert network.model.rotary_emb.inv_freq.dtype == torch.float32
    ids = torch.randint(1, 256, (1, 200), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(network(ids).logits, plain(ids).logits)


@pytest.mark.parametrize(
    "device_map", ["auto", "cpu", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}]
)
def test_device_map(bfloat, device_map):
    model = build(bfloat, device_map=device_map, device="cpu", dtype="auto")
    assert {str(parameter.device) for parameter in model.model.parameters()} == {"cpu"}
    request = (("", ""), list(range(1, 40)), [5])
    assert model._loglikelihood_tokens([request]) == build(
        bfloat, dtype="auto"
    )._loglikelihood_tokens([request])


@pytest.mark.parametrize("device_map", ["everywhere", {}, True, {"": 3.5}, {"": "disk"}])
def test_a_wrong_device_map_is_refused(bfloat, device_map):
    with pytest.raises(ValueError, match="device_map: wanted"):
        build(bfloat, device_map=device_map)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device_map", ["cuda:0", 0, {"": 0}])
def test_a_device_map_of_what_is_not_here_is_refused(bfloat, device_map):
    with pytest.raises(ValueError, match=r"device_map: .*'cuda:0' without CUDA"):
        build(bfloat, device_map=device_map)


def test_a_device_map_does_not_take_float64(bfloat):
    with pytest.raises(ValueError, match=r"dtype: wanted .* with a device_map, got float64"):
        build(bfloat, device_map="auto", dtype="float64")


def test_device(bfloat):
    assert str(build(bfloat, device=None).device) == "cpu"
    with pytest.raises(ValueError, match="device: wanted cpu or cuda, got 'gpu'"):
        build(bfloat, device="gpu")


@pytest.mark.parametrize("batch_size", [1, 8, "4", "auto", "auto:2", None])
def test_batch_size_is_accepted_and_prompts_are_read_one_at_a_time(bfloat, batch_size):
    model = build(bfloat, batch_size=batch_size, max_batch_size=64)
    assert model.batch_size == 1


@pytest.mark.parametrize("batch_size", [0, -1, "many", "auto:x", "4:2", 1.5])
def test_a_wrong_batch_size_is_refused(bfloat, batch_size):
    with pytest.raises(ValueError, match="batch_size: wanted a number above 0, auto or auto:N"):
        build(bfloat, batch_size=batch_size)


def test_max_length(bfloat):
    assert build(bfloat, max_length=77).max_length == 77
    assert build(bfloat).max_length == 16384
    for wrong in (0, -5, "long", True):
        with pytest.raises(ValueError, match="max_length: wanted a number of tokens above 0"):
            build(bfloat, max_length=wrong)


@pytest.mark.parametrize("chunk", [-1, 1.5, "all", True])
def test_a_wrong_chunk_is_refused(bfloat, chunk):
    with pytest.raises(ValueError, match="chunk: wanted tokens read at a time"):
        build(bfloat, chunk=chunk)


def test_subfolder(bfloat, tmp_path):
    shutil.copytree(bfloat, tmp_path / "inner" / "model")
    assert build(tmp_path, subfolder="inner/model").tokenizer.encode("a") == [97]
    with pytest.raises(FileNotFoundError, match=r"wanted a model directory, got .*/other"):
        build(tmp_path, subfolder="other")


def test_revision_reaches_the_hub(bfloat, monkeypatch):
    """No hub here: what from_pretrained is asked for."""
    asked = []

    def refuse(name, **how):
        asked.append((name, how["revision"]))
        raise OSError("no network")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(FileNotFoundError, match="wanted a directory or hub id, got some/model"):
        MsaLM("some/model", revision=123)
    assert asked == [("some/model", "123")]
    with pytest.raises(ValueError, match="revision: wanted none of a directory, got 'v2'"):
        build(bfloat, revision="v2")


def test_the_weights_are_of_the_revision_too(bfloat, monkeypatch):
    asked = {}
    real = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda name, **how: asked.update(how) or real(name, **how),
    )
    assert build(bfloat, revision="main").revision == "main"
    assert asked["revision"] == "main"


REMOTE = """
from transformers import Qwen2Config, Qwen2ForCausalLM
class OddConfig(Qwen2Config):
    model_type = "odd"
class Odd(Qwen2ForCausalLM):
    config_class = OddConfig
"""


def test_trust_remote_code(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    where = shutil.copytree(tiny_model_dir, tmp_path / "odd")
    (where / "odd.py").write_text(REMOTE)
    config = json.loads((where / "config.json").read_text())
    config |= {
        "model_type": "odd",
        "auto_map": {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.Odd"},
    }
    (where / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code"):
        build(where)
    assert type(build(where, trust_remote_code=True).model).__name__ == "Odd"


def test_tokenizer_of_another_directory(bfloat, tiny_model_dir, tmp_path):
    where = shutil.copytree(bfloat, tmp_path / "bare")
    (where / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing \['tokenizer.json'\]"):
        build(where)
    assert build(where, tokenizer=str(tiny_model_dir)).tokenizer.encode("a") == [97]
    ready = AutoTokenizer.from_pretrained(tiny_model_dir)
    assert build(where, tokenizer=ready).tokenizer is ready
    with pytest.raises(ValueError, match="tokenizer: wanted a directory or hub id of one"):
        build(where, tokenizer=str(tmp_path / "none"))


def test_options_of_the_tokenizer_reach_it(bfloat, monkeypatch):
    asked = {}
    real = AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda name, **how: asked.update(how) or real(name, **how)
    )
    model = build(bfloat, use_fast_tokenizer=False, add_bos_token=False)
    assert (asked["use_fast"], asked["add_bos_token"]) == (False, False)
    assert model.add_bos_token is False


def test_what_hflm_itself_does_with_a_loaded_model(bfloat):
    model = build(
        bfloat,
        prefix_token_id=7,
        think_end_token="</think>",
        enable_thinking=True,
        chat_template_args={"style": "plain"},
    )
    assert model.prefix_token_id == 7
    assert model.think_end_token == "</think>"
    assert model.chat_template_args == {"style": "plain", "enable_thinking": True}
