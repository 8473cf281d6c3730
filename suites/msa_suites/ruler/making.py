"""From a tokenizer to a folder of items: what is there already is kept, the rest is made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msa_harness.files import LOCK, write_atomic
from msa_suites.quality.items import short_hash
from msa_suites.ruler.drawing import TASKS, Sources, prompt_of
from msa_suites.ruler.fitting import fit
from msa_suites.ruler.kept import MANIFEST, TASK_FILES, Folder, is_whole, keep, read_folder, stem
from msa_suites.ruler.sources import Haystack, find_haystack, find_questions
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
    haystack = find_haystack(wanted.haystack)
    text = find_text(wanted.text) if wanted.text else ""
    folder = _open(out, _settings(tokenizer, wanted, haystack, text))
    missing = [
        (task, length)
        for task in wanted.tasks
        for length in wanted.lengths
        if not is_whole(folder, stem(task, length))
        # Its answers are those behind the greatest length: one more changes all.
        or (task == TAIL and folder.lengths(TAIL) != list(wanted.lengths))
    ]
    makers = _Makers(wanted, haystack, text, Counter(tokenizer))
    for number, (task, length) in enumerate(missing, 1):
        say(f"{number}/{len(missing)}: {wanted.samples} items of {task}, {length} tokens")
        keep(folder, task, length, makers.items(task, length))
        _write_task(folder, task)
    return folder


class _Makers:
    """Draws the items of one task and length after the other; sources are read once."""

    def __init__(self, wanted: Wanted, haystack: Haystack, text: str, count: Counter) -> None:
        self._wanted, self._haystack, self._count = wanted, haystack, count
        self._windows = Windows(text, count)
        files = dict(wanted.files)
        # Before anything is made: what cannot be had is said at once.
        self._questions = {
            name: find_questions(name, files.get(name))
            for name in dict.fromkeys(TASKS[t].data_set for t in wanted.tasks if t in TASKS)
            if name
        }

    def items(self, task: str, length: int) -> Iterator[dict[str, Any]]:
        if task in TASKS:
            return self._asked(task, length)
        if task == PERPLEXITY:
            passages = self._windows.perplexity(length, most=self._wanted.samples)
        else:
            # Ends are those of the greatest length, so that the answers are the same at each.
            passages = (
                one
                for one in self._windows.tail(list(self._wanted.lengths), most=self._wanted.samples)
                if one.length == length
            )
        return (_passage(task, one) for one in passages)

    def _asked(self, name: str, length: int) -> Iterator[dict[str, Any]]:
        sources = Sources(length, self._haystack, self._questions)
        task, wanted = TASKS[name], self._wanted
        found = fit(name, task, sources, self._count, seed=wanted.seed, samples=wanted.samples)
        for index, one in enumerate(found):
            item = short_hash(name, prompt_of(task, one.drawn), *one.drawn.outputs)
            yield {
                "index": index,
                "item": item,
                **asdict(one.drawn),
                "length": one.tokens,
                "max_length": length,
            }


def _passage(task: str, one: Passage) -> dict[str, Any]:
    return {
        "index": one.document,
        "item": short_hash(task, one.prompt, one.answer),
        "prompt": one.prompt,
        "answer": one.answer,
        "length": one.tokens,
        "max_length": one.length,
    }


def _settings(
    tokenizer: Tokenizer, wanted: Wanted, haystack: Haystack, text: str
) -> dict[str, Any]:
    return {
        "seed": wanted.seed,
        "samples": wanted.samples,
        "tokenizer": fingerprint(tokenizer),
        "haystack": {"name": haystack.name, "sha256": haystack.sha256},
        "text": hashlib.sha256(text.encode()).hexdigest() if text else "",
        "python": platform.python_version() if haystack.name == "topics" else "",
        **{name: importlib.metadata.version(name) for name in _VERSIONS},
    }


def _open(out: Path, settings: dict[str, Any]) -> Folder:
    """The folder as it is, or a new one.

    Raises:
        ItemsError: there is a manifest of something else.
        ValueError: its items were made with other settings, or it holds other files.
    """
    if not (out / MANIFEST).exists():
        if any(one.name != LOCK for one in out.iterdir()):
            raise ValueError(f"--out: wanted a new folder or one with items, got {out}")
        (out / TASK_FILES).mkdir(parents=True, exist_ok=True)
        return Folder(out, settings, {})
    folder = read_folder(out)
    for name, value in settings.items():
        if value == "" or folder.settings.get(name) == "":  # not wanted now, or not until now
            folder.settings[name] = folder.settings.get(name) or value
        elif folder.settings.get(name) != value:
            raise ValueError(
                f"--out: the items in {out} were made with {name} {folder.settings.get(name)!r}, "
                f"got {value!r}; name another folder"
            )
    return folder


def _write_task(folder: Folder, task: str) -> None:
    """lm-eval's file for a task, with a metric for each length."""
    lines = [f"task: {task}", *_body(task), "metric_list:"]
    prefix, better = ("nll_", "false") if task in TEXT_TASKS else ("", "true")
    for length in folder.lengths(task):
        lines += [
            f'  - metric: "{prefix}{length}"',
            "    aggregation: mean",
            f"    higher_is_better: {better}",
        ]
    lines += ["metadata:", "  version: 1.0", ""]
    write_atomic(folder.path / TASK_FILES / f"{task}.yaml", "\n".join(lines))


def _body(task: str) -> Sequence[str]:
    source = [
        "custom_dataset: !function msa_suites.ruler.lm_tasks.dataset",
        "dataset_kwargs:",
        f"  task: {task}",
        "test_split: test",
        "num_fewshot: 0",
    ]
    if task in TEXT_TASKS:
        return [
            *source,
            "output_type: loglikelihood",
            "doc_to_text: prompt",
            "doc_to_target: answer",
            'target_delimiter: ""',
            "process_results: !function msa_suites.ruler.lm_tasks.nll",
        ]
    score = "all_outputs" if TASKS[task].all_outputs else "any_output"
    return [
        *source,
        "output_type: generate_until",
        'doc_to_text: "{{input}}"',
        'doc_to_target: "{{outputs}}"',
        'gen_prefix: "{{gen_prefix}}"',
        f"target_delimiter: {json.dumps(TASKS[task].delimiter)}",
        f"process_results: !function msa_suites.ruler.lm_tasks.{score}",
        "generation_kwargs:",
        "  do_sample: false",
        "  temperature: 0.0",
        f"  max_gen_toks: {TASKS[task].answer}",
        "  until: []",
    ]
