"""From a tokenizer to a folder of items: what is there already is kept, the rest is made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msa_harness.files import LOCK
from msa_suites.quality.items import short_hash
from msa_suites.ruler import DATA_SETS
from msa_suites.ruler.drawing import TASKS, Sources, prompt_of
from msa_suites.ruler.fitting import fit
from msa_suites.ruler.kept import (
    MANIFEST,
    TASK_FILES,
    Folder,
    is_whole,
    keep,
    read_folder,
    stem,
    write_manifest,
)
from msa_suites.ruler.sources import Haystack, Questions, find_haystack, find_questions
from msa_suites.ruler.texts import PERPLEXITY, TAIL, TEXT_TASKS, Passage, Windows, find_text
from msa_suites.ruler.tokens import Counter, Tokenizer, fingerprint

ALL_TASKS = (*TASKS, *TEXT_TASKS)
_VERSIONS = ("lm-eval", "wonderwords", "nltk")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asks for.

    Attributes:
        tasks: names out of :data:`ALL_TASKS`.
        lengths: tokens that an item may have, with its answer.
        samples: items of each task and length.
        seed: of everything drawn at random.
        haystack: name of a haystack, or a text file.
        text: a text file or data set, for the tasks on plain text.
        files: local files of data sets, by name.
    """

    tasks: tuple[str, ...]
    lengths: tuple[int, ...]
    samples: int
    seed: int
    haystack: str
    text: str = ""
    files: tuple[tuple[str, Path], ...] = ()


def make(out: Path, tokenizer: Tokenizer, wanted: Wanted, *, say: Callable[[str], None]) -> Folder:
    """Write what is wanted and not there yet.

    A length of ``text_tail_nll`` beyond all others changes its answers, so all of it is made again.

    Args:
        out: the folder; made if need be.
        tokenizer: of transformers; its tokens are counted.
        wanted: tasks, lengths and sources.
        say: progress.

    Raises:
        SourceError: a text or data set is not at hand.
        FitError: no item fits, or a text is too short.
        ItemsError: the folder holds something else.
        ValueError: it holds items that were made otherwise.
    """
    gathered = _gather(wanted)
    folder = _open(out, _settings(tokenizer, wanted, gathered))
    tails = sorted({*wanted.lengths, *folder.lengths(TAIL)})
    longer = tails[-1] > max(folder.lengths(TAIL), default=0)
    missing = [
        (task, length)
        for task in wanted.tasks
        for length in (tails if task == TAIL else wanted.lengths)
        if not is_whole(folder, stem(task, length)) or (task == TAIL and longer)
    ]
    makers = _Makers(wanted, gathered, tails, Counter(tokenizer))
    for number, (task, length) in enumerate(missing, 1):
        say(f"{number}/{len(missing)}: {wanted.samples} items of {task}, {length} tokens")
        keep(folder, task, length, makers.items(task, length))
    write_manifest(folder)
    return folder


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What the wanted tasks are made of; empty where none needs it."""

    haystack: Haystack
    text: str
    questions: dict[str, Questions]


def _gather(wanted: Wanted) -> _Gathered:
    """Read every source, before anything is made: what cannot be had is said at once."""
    asked = [TASKS[name] for name in wanted.tasks if name in TASKS]
    files = dict(wanted.files)
    return _Gathered(
        haystack=(
            find_haystack(wanted.haystack)
            if any(task.prose for task in asked)
            else Haystack("", ())
        ),
        text=find_text(wanted.text) if wanted.text else "",
        questions={
            name: find_questions(name, files.get(name))
            for name in dict.fromkeys(task.data_set for task in asked)
            if name
        },
    )


class _Makers:
    """Draws the items of one task and length after the other."""

    def __init__(
        self, wanted: Wanted, gathered: _Gathered, tails: list[int], count: Counter
    ) -> None:
        self._wanted, self._gathered, self._count = wanted, gathered, count
        self._windows = Windows(gathered.text, count)
        self._tails = tails
        self._tail: list[Passage] = []

    def items(self, task: str, length: int) -> Iterator[dict[str, Any]]:
        if task in TASKS:
            return self._asked(task, length)
        if task == PERPLEXITY:
            passages = self._windows.perplexity(length, most=self._wanted.samples)
            return (_passage(task, one) for one in passages)
        # Ends are those of the greatest length, so that the answers are the same at each.
        self._tail = self._tail or list(self._windows.tail(self._tails, most=self._wanted.samples))
        return (_passage(task, one) for one in self._tail if one.length == length)

    def _asked(self, name: str, length: int) -> Iterator[dict[str, Any]]:
        sources = Sources(length, self._gathered.haystack, self._gathered.questions)
        task, wanted = TASKS[name], self._wanted
        found = fit(name, task, sources, self._count, seed=wanted.seed, samples=wanted.samples)
        for index, one in enumerate(found):
            prompt = prompt_of(task, one.drawn)
            yield {
                "index": index,
                "item": short_hash(name, str(length), str(index), prompt, *one.drawn.outputs),
                **asdict(one.drawn),
                "length": one.tokens,
                "max_length": length,
            }


def _passage(task: str, one: Passage) -> dict[str, Any]:
    return {
        "index": one.document,
        "item": short_hash(task, str(one.length), str(one.document), one.prompt, one.answer),
        "prompt": one.prompt,
        "answer": one.answer,
        "length": one.tokens,
        "max_length": one.length,
    }


def _settings(tokenizer: Tokenizer, wanted: Wanted, gathered: _Gathered) -> dict[str, Any]:
    """What decides the items; empty for a source that is not wanted."""
    haystack = gathered.haystack
    questions = {
        name: hashlib.sha256(json.dumps(gathered.questions[name]).encode()).hexdigest()
        if name in gathered.questions
        else ""
        for name in DATA_SETS
    }
    return {
        "seed": wanted.seed,
        "samples": wanted.samples,
        "tokenizer": fingerprint(tokenizer),
        "haystack": f"{haystack.name} sha256:{haystack.sha256}" if haystack.words else "",
        "text": hashlib.sha256(gathered.text.encode()).hexdigest() if gathered.text else "",
        **questions,
        **{name: importlib.metadata.version(name) for name in _VERSIONS},
    }


def _open(out: Path, settings: dict[str, Any]) -> Folder:
    """The folder as it is, or a new one.

    Raises:
        ItemsError: there is a manifest of something else.
        ValueError: its items were made with other settings, or it holds other files.
    """
    folder = Folder(out, {}, {})
    if (out / MANIFEST).exists():
        folder = read_folder(out)
    elif any(one.name not in (LOCK, TASK_FILES) for one in out.iterdir()):
        raise ValueError(f"--out: wanted a new folder or one with items, got {out}")
    (out / TASK_FILES).mkdir(exist_ok=True)
    if not folder.files:  # whatever an attempt that made nothing was about
        return Folder(out, settings, {})
    for name, value in settings.items():
        kept = folder.settings.get(name, "")
        if "" not in (kept, value) and kept != value:
            raise ValueError(
                f"--out: the items in {out} were made with {name} {kept!r}, got {value!r}; "
                "name another folder"
            )
        folder.settings[name] = value if kept == "" else kept
    return folder
