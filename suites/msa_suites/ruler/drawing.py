"""RULER's thirteen tasks under lm-eval's names: how an item of a given size is drawn."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from msa_suites.ruler.sources import Haystack, Questions, lm_eval_ruler


@dataclass(frozen=True, slots=True)
class Drawn:
    """An item as lm-eval's tasks read it.

    Attributes:
        input: the prompt, but for its last line.
        outputs: what the answer must contain.
        gen_prefix: how the answer begins, which the model goes on from.
    """

    input: str
    outputs: list[str]
    gen_prefix: str


@dataclass(frozen=True)
class Sources:
    """What items are made of.

    Attributes:
        length: tokens that an item may have, its answer among them.
        haystack: of the tasks that hide needles in prose.
        questions: by data set; only those that a wanted task asks on.
        example: the worked example before every item of ``ruler_vt``, with its answer.
    """

    length: int
    haystack: Haystack
    questions: dict[str, Questions] = field(default_factory=dict)
    example: str = ""


#: Draws item ``index`` with ``size`` units of text.
Draw = Callable[[Sources, int, int], Drawn]


@dataclass(frozen=True, slots=True)
class RulerTask:
    """One of the tasks.

    Attributes:
        draw: the item of a size, by generators that `seeded` of :mod:`msa_suites.ruler.sources`.
        step: units of text (words, sentences, documents) by which lm-eval grows an item.
        answer: tokens that the answer may have.
        delimiter: between the prompt and the beginning of the answer.
        prose: whether its needles are hidden in the haystack of :class:`Sources`.
        data_set: that it asks on, or empty.
        all_outputs: every output is wanted; otherwise they are ways to say one answer.
    """

    draw: Draw
    step: int
    answer: int
    delimiter: str = " "
    prose: bool = False
    data_set: str = ""
    all_outputs: bool = True


def _needles(hidden_in: str, key: str, value: str, **counts: int) -> Draw:
    def draw(sources: Sources, size: int, index: int) -> Drawn:
        del index
        niah, template = lm_eval_ruler("prepare_niah"), lm_eval_ruler("niah_utils").TEMPLATE
        count = {"num_needle_k": 1, "num_needle_v": 1, "num_needle_q": 1, **counts}
        essay = hidden_in == "essay"
        text, outputs, query = niah.generate_input_output(
            size,
            sources.haystack.first(size) if essay else niah.get_haystack(hidden_in),
            type_haystack=hidden_in,
            type_needle_k=key,
            type_needle_v=value,
            template=template,
            **count,
        )
        one = count["num_needle_q"] * count["num_needle_v"] == 1
        what, verb = (value[:-1], "is") if one else (value, "are")
        return Drawn(
            text,
            outputs,
            f"The special magic {what} for {query} mentioned in the provided text {verb}",
        )

    return draw


def _variables(sources: Sources, size: int, index: int) -> Drawn:
    del index
    module = lm_eval_ruler("vt_utils")
    text, outputs = module.generate_input_output(size, num_chains=1, num_hops=4)
    prompt, prefix = _before_answer(text, module.CONFIG["variable_tracking"]["answer_prefix"])
    return Drawn(f"{module.randomize_icl(sources.example)}\n\n{prompt}", outputs, prefix)


def example_of_variables(size: int) -> str:
    """A worked example for ``ruler_vt`` with ``size`` sentences of noise."""
    module = lm_eval_ruler("vt_utils")
    text, outputs = module.generate_input_output(size, num_chains=1, num_hops=4, is_icl=True)
    return f"{text} {' '.join(outputs)}\n\n"


def _common_words(sources: Sources, size: int, index: int) -> Drawn:
    del index
    module = lm_eval_ruler("cwe_utils")
    module.RNG.seed(random.getrandbits(64))  # its own, which seeded() does not reach
    # Where the words run out, each is said more often: lm-eval's contexts end at some 120K tokens.
    times = -(-size // len(module.WORDS))
    _, text, outputs = module.generate_input_output(
        size // times, max_seq_length=sources.length, freq_cw=30 * times, freq_ucw=3 * times
    )
    prompt, prefix = _before_answer(text, module.CONFIG["answer_prefix"])
    return Drawn(prompt, outputs, prefix)


def _frequent_words(sources: Sources, size: int, index: int) -> Drawn:
    del index
    module = lm_eval_ruler("fwe_utils")
    text, outputs, _ = module.generate_input_output(
        sources.length, _no_tokens, num_words=size, vocab_size=max(4, sources.length // 50)
    )
    prompt, prefix = _before_answer(text, module.CONFIG["answer_prefix"])
    return Drawn(prompt, outputs, prefix)


@dataclass(frozen=True, slots=True)
class _Tokens:
    input_ids: tuple[int, ...] = ()


def _no_tokens(_text: str) -> _Tokens:
    """Stands for a tokenizer where lm-eval would shrink an item: items are fitted elsewhere."""
    return _Tokens()


def _before_answer(text: str, prefix: str) -> tuple[str, str]:
    """Prompt and beginning of the answer; a prefix may have numbers to fill in."""
    at = text.rfind(prefix.partition("{")[0])
    assert at >= 0, "lm-eval's template ends with the beginning of the answer"
    return text[:at].strip(), text[at:].strip()


def _questions(data_set: str) -> Draw:
    def draw(sources: Sources, size: int, index: int) -> Drawn:
        asked, documents = sources.questions[data_set]
        least = len(asked[index]["context"])  # fewer documents do not hold the answer
        text, outputs = lm_eval_ruler("qa_utils").generate_input_output(
            index, max(size, least), asked, list(documents)
        )
        return Drawn(text, list(outputs), lm_eval_ruler("qa_utils").CONFIG["answer_prefix"])

    return draw


def _task(draw: Draw, step: int, answer: int, **settings: Any) -> RulerTask:  # noqa: ANN401
    return RulerTask(draw, step, answer, **settings)


_ANSWER, _SENTENCES, _WORDS = 128, 25, 500
#: The tasks by lm-eval's names.
TASKS: dict[str, RulerTask] = {
    "niah_single_1": _task(_needles("repeat", "words", "numbers"), _SENTENCES, _ANSWER),
    "niah_single_2": _task(_needles("essay", "words", "numbers"), _WORDS, _ANSWER, prose=True),
    "niah_single_3": _task(_needles("essay", "words", "uuids"), _WORDS, _ANSWER, prose=True),
    "niah_multikey_1": _task(
        _needles("essay", "words", "numbers", num_needle_k=4), _WORDS, _ANSWER, prose=True
    ),
    "niah_multikey_2": _task(_needles("needle", "words", "numbers"), _SENTENCES, _ANSWER),
    "niah_multikey_3": _task(_needles("needle", "uuids", "uuids"), _SENTENCES, _ANSWER),
    "niah_multivalue": _task(
        _needles("essay", "words", "numbers", num_needle_v=4), _WORDS, _ANSWER, prose=True
    ),
    "niah_multiquery": _task(
        _needles("essay", "words", "numbers", num_needle_k=4, num_needle_q=4),
        _WORDS,
        _ANSWER,
        prose=True,
    ),
    "ruler_vt": _task(_variables, 10, 30),
    "ruler_cwe": _task(_common_words, 10, 120, delimiter="\n\n"),
    "ruler_fwe": _task(_frequent_words, 50, 50),
    "ruler_qa_squad": _task(_questions("squad"), 10, 32, data_set="squad", all_outputs=False),
    "ruler_qa_hotpot": _task(
        _questions("hotpotqa"), 10, 32, data_set="hotpotqa", all_outputs=False
    ),
}


def prompt_of(task: RulerTask, drawn: Drawn) -> str:
    """What the model reads: the prompt and the beginning of the answer, as lm-eval joins them."""
    return f"{drawn.input}{task.delimiter}{drawn.gen_prefix}"
