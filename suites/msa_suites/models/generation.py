"""Greedy generation as lm-eval's tasks ask for it: to a stop, an end, or a number of tokens.

Only what the logits say: of a model's ``generation_config`` the ids that end a text are read, and
no penalty or sampling default, so that the same weights give the same text under any attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from msa_suites.models.attention import Network
from msa_suites.models.reading import Reading

#: What a task may say of generation beside its stops and its length, and the one value for each.
_GREEDY: dict[str, object] = {"do_sample": False, "temperature": 0.0, "num_beams": 1}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a text ends.

    Attributes:
        stops: texts that end it; they and what follows are no part of it.
        most: tokens at most.
    """

    stops: tuple[str, ...]
    most: int

    @classmethod
    def from_task(cls, given: Mapping[str, Any], *, most: int, eos: str | None) -> Wanted:
        """Read the ``generation_kwargs`` of a task.

        Args:
            given: ``until``, ``max_gen_toks`` or one of lm-eval's other names for it, and settings
                that say that nothing is drawn at random.
            most: ``max_gen_toks`` where the task has none.
            eos: text of the token that ends a text; a stop too, as lm-eval has it.

        Raises:
            ValueError: sampling, beams, anything unknown, or less than one token.
        """
        asked = {name: value for name, value in given.items() if value is not None}
        # Before lm-eval makes them alike: it drops a temperature that do_sample contradicts.
        for name, value in _GREEDY.items():
            if asked.get(name, value) != value:
                raise ValueError(
                    f"{name}: wanted {value}, because text is generated greedily, "
                    f"got {asked[name]!r}"
                )
        settled: dict[str, Any] = dict(normalize_gen_kwargs(asked, most))
        stops = handle_stop_sequences(settled.pop("until"), eos=eos)
        length = settled.pop("max_gen_toks")
        if unknown := sorted(settled.keys() - _GREEDY.keys()):
            raise ValueError(
                f"generation_kwargs: wanted until, max_gen_toks, {', '.join(_GREEDY)}, "
                f"got {unknown[0]!r}"
            )
        if length < 1:
            raise ValueError(f"max_gen_toks: wanted at least 1, got {length}")
        return cls(tuple(stop for stop in stops if stop), length)


class _Stops:
    """Whether the newest tokens contain a stop."""

    def __init__(self, tokenizer: Any, stops: Iterable[str]) -> None:  # noqa: ANN401 - untyped
        self.tokenizer = tokenizer
        self.stops = tuple(stops)
        # A token is a byte at least; two more, because decoding may eat a space at the start.
        self.tail = 2 + max((len(stop.encode()) for stop in self.stops), default=0)

    def found(self, written: Sequence[int]) -> bool:
        if not self.stops:
            return False
        text = self.tokenizer.decode(written[-self.tail :], skip_special_tokens=False)
        return any(stop in text for stop in self.stops)


def ends_of(model: Network) -> frozenset[int]:
    """Ids that end a text, by the model's ``generation_config``: none, one or several."""
    ids = model.generation_config.eos_token_id
    if ids is None:
        return frozenset()
    return frozenset(ids) if isinstance(ids, list | tuple) else frozenset({ids})


def generate(
    model: Network,
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    prompt: Sequence[int],
    wanted: Wanted,
    *,
    chunk: int,
) -> list[int]:
    """The likeliest next token, again and again.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer, to see stops.
        prompt: ids, not empty.
        wanted: where to end.
        chunk: tokens of the prompt read at a time; 0 reads it whole.

    Returns:
        Ids of the text with what ended it: at least one.
    """
    ends, stops = ends_of(model), _Stops(tokenizer, wanted.stops)
    reading = Reading(model, chunk=chunk)
    written: list[int] = []
    fresh = prompt
    while len(written) < wanted.most:
        token = int(reading.advance(fresh).argmax())
        written.append(token)
        if token in ends or stops.found(written):
            break
        fresh = [token]
    return written


def to_text(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    written: Sequence[int],
    stops: Sequence[str],
    *,
    think_end: int | str | None,
) -> str:
    """The answer in what was generated, cut as lm-eval cuts it.

    Args:
        tokenizer: of the model.
        written: ids of :func:`generate`.
        stops: texts at the first of which it is cut.
        think_end: id or text that ends the model's thinking, which is no part of the answer.
    """
    kept = list(written)
    by_id = isinstance(think_end, int)
    if by_id and think_end in kept:
        kept = kept[len(kept) - kept[::-1].index(think_end) :]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    answer: str = postprocess_generated_text(
        generation=text.lstrip() if by_id else text,
        stop=list(stops),
        think_end_token=None if by_id else think_end,
    )
    return answer
