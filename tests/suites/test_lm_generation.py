from __future__ import annotations

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny_models import save_family

from msa_suites.models.attention import MsaSettings
from msa_suites.models.generation import Wanted, ends_of, generate, to_text
from msa_suites.models.lm import MsaLM
from msa_suites.quality.errors import QualityInvalid
from msa_suites.quality.items import load_items

PROMPTS = tuple(
    item.context[:length] + item.question
    for item, length in zip(load_items("msa_facts")[::12], (190, 150), strict=False)
)
SPARSE = MsaSettings(topk=3, block=16)
MODELS = ("embedded", "llama", "qwen2")
CHUNKS = (7, 64, 0)


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    name = request.param
    if name == "embedded":
        return MsaLM(attention="dense")
    where = save_family(name, tmp_path_factory.mktemp(name))
    return MsaLM(str(where), attention="dense")


@pytest.fixture(scope="module")
def small(tiny_model_dir):
    return MsaLM(str(tiny_model_dir), attention="dense")


@pytest.fixture
def written(model, monkeypatch):
    """What reaches lm-eval's cache."""
    kept = []
    monkeypatch.setattr(
        model.cache_hook, "add_partial", lambda *given: kept.append(given), raising=False
    )
    return kept


def instances(prompts, **how):
    how = {"until": [], "max_gen_toks": 12, "do_sample": False, **how}
    return [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(how)), idx=index)
        for index, prompt in enumerate(prompts)
    ]


def of_hflm(model, requests):
    plain = HFLM(pretrained=model.model, tokenizer=model.tokenizer, backend="causal")
    return plain.generate_until(requests, disable_tqdm=True)


def test_dense_text_is_that_of_lm_evals_own_class(model, written):
    model.attend("dense")
    wanted = of_hflm(model, instances(PROMPTS))
    assert model.generate_until(instances(PROMPTS)) == wanted
    assert any(wanted)
    assert [(kind, given[0], text) for kind, given, text in written] == [
        ("generate_until", prompt, text) for prompt, text in zip(PROMPTS, wanted, strict=True)
    ]
    assert all(given[1] == instances(PROMPTS)[0].args[1] for _, given, _ in written)


def test_stops_cut_as_lm_evals_own_class_cuts(model):
    model.attend("dense")
    whole = model.generate_until(instances(PROMPTS))
    stops = sorted({text[at : at + 2] for text in whole for at in (2, 6) if text[at:]})
    assert stops
    for until in (stops[0], stops, [*stops, "never"]):
        found = model.generate_until(instances(PROMPTS, until=until))
        assert found == of_hflm(model, instances(PROMPTS, until=until))
        assert found != whole


@pytest.mark.parametrize("attention", ["dense", "msa"])
def test_chunks_of_any_size_give_the_same_text(model, attention):
    model.attend(attention, SPARSE)
    texts = []
    for chunk in CHUNKS:
        model.chunk = chunk
        texts.append(model.generate_until(instances(PROMPTS)))
    assert texts == [texts[0]] * len(CHUNKS)


def test_sparse_text_is_that_of_transformers_generate(model):
    model.attend("msa", SPARSE)
    model.chunk = 64
    found = model.generate_until(instances(PROMPTS))
    wanted = []
    for prompt in PROMPTS:
        ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
        made = model.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
        wanted.append(model.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
    assert found == wanted
    model.attend("dense")
    assert model.generate_until(instances(PROMPTS)) != found


def test_the_embedded_model_answers():
    model = MsaLM()
    items = load_items("msa_niah_single")[:2]
    found = model.generate_until(instances([item.prompt for item in items], max_gen_toks=2))
    assert found == [item.answer[:2] for item in items]


def test_an_end_of_the_models_own_ends_a_text(small, monkeypatch):
    small.attend("dense")
    prompt = small.tokenizer.encode(PROMPTS[0])
    ids = generate(small.model, small.tokenizer, prompt, Wanted((), 12), chunk=0)
    assert len(ids) == 12
    end = ids[1]
    assert end != ids[0]
    monkeypatch.setattr(small.model.generation_config, "eos_token_id", [0, end])
    assert ends_of(small.model) == {0, end}
    found = small.generate_until(instances(PROMPTS[:1]))
    assert found == of_hflm(small, instances(PROMPTS[:1]))
    assert found == [small.tokenizer.decode(ids[:2])]


def test_the_end_itself_is_no_text(small, monkeypatch):
    """Byte 0 ends a text, and the tokenizer calls it special."""
    small.attend("dense")
    head = small.model.get_output_embeddings()
    monkeypatch.setattr(
        head, "forward", lambda states: torch.eye(256)[0].expand(*states.shape[:-1], 256)
    )
    assert small.generate_until(instances(PROMPTS)) == [""] * len(PROMPTS)
    assert of_hflm(small, instances(PROMPTS)) == [""] * len(PROMPTS)


def test_a_penalty_in_the_models_files_changes_nothing(small, monkeypatch):
    small.attend("dense")
    before = small.generate_until(instances(PROMPTS))
    monkeypatch.setattr(small.model.generation_config, "repetition_penalty", 5.0)
    assert small.generate_until(instances(PROMPTS)) == before


def test_a_prompt_that_would_be_cut_is_refused(tiny_model_dir):
    model = MsaLM(str(tiny_model_dir), attention="dense", max_length=120)
    assert model.generate_until(instances(["a" * 108]))
    with pytest.raises(
        QualityInvalid, match=r"at most 108 tokens \(.* 120 less 12 .*\), got 109: it would be cut"
    ):
        model.generate_until(instances(["a" * 109]))
    with pytest.raises(QualityInvalid, match="wanted at most -4 tokens"):
        model.generate_until(instances(["a"], max_gen_toks=124))


def test_a_prompt_within_the_budget_is_refused(small):
    small.attend("msa", MsaSettings(topk=4, block=32))
    with pytest.raises(QualityInvalid, match=r"topk \* block = 128 tokens, got 128: MSA equals"):
        small.generate_until(instances(["a" * 400, "a" * 128]))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"do_sample": True}, "do_sample: wanted False, because text is generated greedily"),
        ({"do_sample": None, "temperature": 0.7}, "temperature: wanted 0.0, .* got 0.7"),
        ({"temperature": 0.7}, "temperature: wanted 0.0, .* got 0.7"),
        ({"num_beams": 4}, "num_beams: wanted 1, .* got 4"),
        ({"repetition_penalty": 1.3}, "generation_kwargs: wanted until, .* 'repetition_penalty'"),
        ({"max_gen_toks": 0}, "max_gen_toks: wanted at least 1, got 0"),
    ],
)
def test_what_is_not_greedy_is_refused(small, how, words):
    small.attend("dense")
    with pytest.raises(ValueError, match=words):
        small.generate_until(instances(PROMPTS, **how))


def test_an_empty_prompt_is_refused(small):
    small.attend("dense")
    with pytest.raises(ValueError, match="context: wanted at least one token, got none"):
        small.generate_until(instances([""]))


def test_what_a_task_says_of_generation():
    said = {"until": "\n", "max_new_tokens": 5, "temperature": None, "do_sample": False}
    assert Wanted.from_task(said, most=9, eos="<e>") == Wanted(("\n", "<e>"), 5)
    assert Wanted.from_task({}, most=9, eos=None) == Wanted((), 9)
    assert Wanted.from_task({"until": ["", "x"]}, most=9, eos="") == Wanted(("x",), 9)
    assert said["until"] == "\n"


def test_thinking_is_no_part_of_the_answer(small):
    written = small.tokenizer.encode("one|two| three.")
    bar = small.tokenizer.encode("|")[0]
    for end in (bar, "|"):
        assert to_text(small.tokenizer, written, ["."], think_end=end) == "three"
    assert to_text(small.tokenizer, written, ["."], think_end=None) == "one|two| three"
    assert to_text(small.tokenizer, written, [], think_end=5) == "one|two| three."
