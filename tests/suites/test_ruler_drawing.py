"""RULER's items against lm-eval's own generator: the same text around other words, same score."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from lm_eval.tasks.ruler.common_utils import process_results, process_results_part

from msa_suites.ruler.drawing import TASKS, Drawn, Sources
from msa_suites.ruler.fitting import FitError, fit
from msa_suites.ruler.lm_tasks import all_outputs, any_output, found
from msa_suites.ruler.sources import Haystack, lm_eval_ruler, seeded
from msa_suites.ruler.tokens import Counter

#: The needles' modules take ten seconds and a gigabyte: their tests are slow ones.
_OFFLINE = [
    pytest.param(name, marks=[pytest.mark.slow] if name.startswith("niah") else [])
    for name, task in TASKS.items()
    if not task.data_set
]


@dataclass(frozen=True)
class Ids:
    input_ids: list[int]


class Words:
    """A tokenizer to which every word is a token."""

    is_fast = False

    def __call__(self, text: str | list[str], **_: object) -> Any:
        if isinstance(text, str):
            return Ids([0] * len(text.split()))
        return {"input_ids": [[0] * len(one.split()) for one in text]}


@pytest.fixture(scope="module")
def haystack() -> Haystack:
    return Haystack("plain", tuple(("Plain words are these. " * 2000).split()))


def _items(name: str, length: int, haystack: Haystack, samples: int = 3) -> list[Drawn]:
    made = fit(
        name,
        TASKS[name],
        Sources(length, haystack),
        Counter(Words()),
        seed=3,
        samples=samples,
    )
    return [one.drawn for one in made]


def _theirs(name: str, length: int, haystack: Haystack) -> dict[str, Any]:
    """An item that lm-eval's own generator makes of the same haystack."""
    tokenizer = Words()
    if name == "ruler_vt":
        example = lm_eval_ruler("vt_utils").sys_vartrack_w_noise_random(
            tokenizer, num_samples=1, max_seq_length=500, incremental=5
        )[0]
        return dict(
            lm_eval_ruler("vt_utils").sys_vartrack_w_noise_random(
                tokenizer, num_samples=1, max_seq_length=length, icl_example=example
            )[0]
        )
    if name == "ruler_cwe":
        return dict(lm_eval_ruler("cwe_utils").sys_word_pair_random(1, length, tokenizer)[0])
    if name == "ruler_fwe":
        return dict(lm_eval_ruler("fwe_utils").sys_kwext(tokenizer, length, num_samples=1)[0])
    made: list[dict[str, Any]] = []

    def taken(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        made.extend(generate(*args, **{**kwargs, "num_samples": 1}))
        return made

    generate: Callable[..., list[dict[str, Any]]] = lm_eval_ruler("prepare_niah").generate_samples
    with pytest.MonkeyPatch.context() as patch:
        niah = lm_eval_ruler("niah_utils")
        patch.setattr(niah, "get_tokenizer", lambda _: tokenizer)
        patch.setattr(niah, "generate_samples", taken)
        patch.setattr(
            niah,
            "get_haystack",
            lambda type_haystack: (
                list(haystack.words)
                if type_haystack == "essay"
                else lm_eval_ruler("prepare_niah").get_haystack(type_haystack)
            ),
        )
        getattr(niah, name)(max_seq_lengths=[length], pretrained="words")
    return made[0]


#: What is drawn at random, and the words that stay around it.
_DRAWN = (
    (r"for .*? (is:|mentioned)", r"for # \1"),  # keys
    (r"\d+\. [^\n]*?(?= \d+\. |\n)", "#"),  # numbered words
    (r"(?:[0-9a-f]+-){4}[0-9a-f]+", "#"),
    (r"\b(?!VAR\b)[A-Z]{3,5}\b", "#"),  # variables
    (r"\d+", "#"),
)


def _skeleton(name: str, text: str) -> list[str]:
    """The sentences of a text without what is drawn at random, each once."""
    for drawn, instead in _DRAWN:
        text = re.sub(drawn, instead, text)
    if name == "ruler_fwe":
        text = re.sub(r"(?s)(coded words\. ).*(\nQuestion)", r"\1#\2", text)
    return sorted({one.strip(" #") for one in re.split(r"[.\n]", text)})


@pytest.mark.parametrize("name", _OFFLINE)
def test_items_read_as_those_of_lm_eval(name: str, haystack: Haystack) -> None:
    seeded(5)
    theirs = _theirs(name, 4096, haystack)
    ours = _items(name, 4096, haystack)[0]
    assert len(ours.outputs) == len(theirs["outputs"])
    for mine, right in ((ours.gen_prefix, theirs["gen_prefix"]), (ours.input, theirs["input"])):
        assert _skeleton(name, mine) == _skeleton(name, right)


@pytest.mark.parametrize("name", _OFFLINE)
def test_items_hold_their_answers_and_fill_their_length(name: str, haystack: Haystack) -> None:
    task = TASKS[name]
    items = _items(name, 3000, haystack)
    assert items == _items(name, 3000, haystack), "an item is a function of the seed"
    assert len({one.input for one in items}) == len(items)
    for one in items:
        assert all(output in one.input for output in one.outputs)
        words = len(f"{one.input}{task.delimiter}{one.gen_prefix}".split())
        # A step more would not fit; steps are sentences, words, documents.
        assert 3000 - task.answer - 40 * task.step <= words <= 3000 - task.answer


def test_what_cannot_fit_is_said(haystack: Haystack) -> None:
    with pytest.raises(FitError, match=r"--lengths: wanted room for ruler_cwe.*got 200"):
        _items("ruler_cwe", 200, haystack)


@pytest.mark.parametrize(
    "name", [*_OFFLINE, *(name for name, task in TASKS.items() if task.data_set)]
)
def test_scores_are_those_of_lm_eval(name: str, haystack: Haystack) -> None:
    rng = random.Random(name)
    outputs = [["Alpha"], ["4711", "12", "x y"], ["same", "Same again"]]
    documents = [{"outputs": one, "max_length": 4096} for one in outputs]
    if not TASKS[name].data_set:
        seeded(6)
        documents += [
            {"outputs": _items(name, 3000, haystack)[0].outputs, "max_length": 3000},
            {"outputs": _theirs(name, 3000, haystack)["outputs"], "max_length": 3000},
        ]
    ours, theirs = all_outputs, process_results
    if not TASKS[name].all_outputs:
        ours, theirs = any_output, process_results_part
    for document in documents:
        for _ in range(20):
            said = [one for one in document["outputs"] if rng.random() < 0.5]
            answer = rng.choice(["", "\n", "I say "]) + " and ".join(rng.sample(said, len(said)))
            answer = rng.choice([str.upper, str.lower, str.title])(answer)
            length = str(document["max_length"])
            assert ours(document, [answer]) == {length: theirs(document, [answer])[length]}
            hits = found(document["outputs"], answer, every=TASKS[name].all_outputs)
            if TASKS[name].all_outputs:
                assert sum(hits) / len(hits) == pytest.approx(ours(document, [answer])[length])
            else:
                assert hits == [float(ours(document, [answer])[length] > 0)]


def test_a_short_haystack_is_taken_again_from_its_start() -> None:
    haystack = Haystack("small", ("a", "b", "c"))
    assert haystack.first(7) == ["a", "b", "c", "a", "b", "c", "a"]
    assert haystack.first(2) == ["a", "b"]
