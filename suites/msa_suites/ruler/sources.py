"""Where the text comes from: RULER's own templates out of lm-eval, haystacks, questions on data.

The words of RULER are lm-eval's, read from the installed package: nothing of them stands here, and
an item reads as lm-eval's generator would have written it. Its modules draw from the generators of
random numbers of `random` and `numpy`; :func:`seeded` sets them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from msa_suites.ruler import HAYSTACKS


class SourceError(ValueError):
    """A text or a data set that an item is made of is not at hand."""


@cache
def lm_eval_ruler(name: str) -> ModuleType:
    """One of lm-eval's modules of RULER, loaded without a download.

    Args:
        name: prepare_niah and niah_utils (needles), vt_utils (tracked variables), cwe_utils (common
            words), fwe_utils (frequent words), qa_utils (questions).
    """
    if "niah" not in name:
        return importlib.import_module(f"lm_eval.tasks.ruler.{name}")
    import nltk
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    # Importing it fetches a model of sentences.
    with mock.patch.object(nltk.data, "find"):
        needles = importlib.import_module("lm_eval.tasks.ruler.prepare_niah")
    # Needles go between sentences, and where those end needs no trained model: without one the
    # same text gives the same items on every machine.
    vars(needles)["cached_sent_tokenize"] = lru_cache(64)(PunktSentenceTokenizer().tokenize)
    return importlib.import_module(f"lm_eval.tasks.ruler.{name}")


def seeded(*key: str | int) -> None:
    """Set every generator of random numbers that lm-eval's modules draw from."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    random.seed(digest)
    np.random.seed(int.from_bytes(digest[:4], "big"))  # noqa: NPY002 - the one that they use


@dataclass(frozen=True, slots=True)
class Haystack:
    """Words that needles are hidden among.

    Attributes:
        name: one of :data:`msa_suites.ruler.HAYSTACKS`, or the file's.
        words: in order; taken again from the start where more are wanted.
    """

    name: str
    words: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(" ".join(self.words).encode()).hexdigest()

    def first(self, count: int) -> list[str]:
        """The first ``count`` words, from the start again behind the last one."""
        times = -(-count // len(self.words))
        return list((self.words * times)[:count])


def find_haystack(name: str) -> Haystack:
    """The haystack of the tasks that RULER hides in essays.

    Args:
        name: ``topics``, the help pages of the running Python, always at hand; ``essays``, the
            data set that lm-eval takes, from the Hub or its cache; or a text file.

    Raises:
        SourceError: it cannot be had, or has too few words.
    """
    if name == "topics":
        text = _topics()
    elif name == "essays":
        text = _essays()
    else:
        text = read_text(Path(name), "--haystack")
    words = tuple(text.split())
    if len(words) < 500:
        raise SourceError(f"--haystack {name}: wanted 500 words at least, got {len(words)}")
    return Haystack(name if name in HAYSTACKS else Path(name).name, words)


def read_text(path: Path, option: str) -> str:
    """The text of a file.

    Raises:
        SourceError: there is no such file, or it is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{option}: wanted a text file in UTF-8, got {path}: {error}") from error


def _topics() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise SourceError(
            "--haystack topics: wanted Python's help pages, got a Python without them; "
            "name a text file"
        ) from error
    return "\n".join(topics[key] for key in sorted(topics))


def _essays() -> str:
    words = lm_eval_ruler("prepare_niah").get_haystack
    try:
        return " ".join(words(type_haystack="essay"))
    except Exception as error:  # of a data set out of reach, the library raises whatever it meets
        raise SourceError(
            "--haystack essays: wanted the data set of essays that lm-eval takes, on the Hub or in "
            f"its cache, got {type(error).__name__}; name a text file, or `topics`"
        ) from error


Questions = tuple[list[dict[str, Any]], list[str]]


def find_questions(name: str, file: Path | None) -> Questions:
    """Questions with their documents, and all documents.

    Args:
        name: one of :data:`msa_suites.ruler.DATA_SETS`.
        file: the data set's own JSON file; None: where lm-eval takes it from.

    Raises:
        SourceError: it cannot be had, or the file is not of that form.
    """
    module = lm_eval_ruler("qa_utils")
    reader: Callable[[], Questions] = getattr(module, f"read_{name}").__wrapped__

    def local(_url: str) -> object:
        assert file is not None
        return json.loads(read_text(file, f"--{name}"))

    try:
        if file is None:
            return reader()
        with mock.patch.object(module, "download_json", local):
            return reader()
    except SourceError:
        raise
    except Exception as error:  # of a file of another form, or no network, anything
        wanted = "a file of the data set" if file else "a network, or its file by this option"
        raise SourceError(
            f"--{name}: wanted {wanted}, got {type(error).__name__}: {str(error)[:200]}"
        ) from error
