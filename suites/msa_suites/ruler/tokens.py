"""The tokenizer that items are fitted to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

#: One of transformers' tokenizers, which ship no types.
Tokenizer: TypeAlias = Any


def load_tokenizer(name: str) -> Tokenizer:
    """A tokenizer of transformers.

    Args:
        name: a model's directory, or the id of one on the Hub or in its cache.

    Raises:
        ValueError: there is none, or it reads every text as nothing.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # of a missing or broken file, transformers raises whatever it meets
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ValueError(
            f"--tokenizer: wanted a model directory or hub id, got {name!r}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    if not Counter(tokenizer)(["Where nothing is counted everything fits."])[0]:
        raise ValueError(f"--tokenizer: wanted one that reads text, got {name!r}: it has no tokens")
    return tokenizer


#: What tokenizers treat differently: case, digits, white space, scripts, code, joined signs.
_PROBE = (
    "The QUICK brown fox's 1234567 jumps -- over\n\n\tlazy dogs;  x[i]**=2 # \u00c4\u00df "
    "\u4e2d\u6587 \U0001f642 e\u0301 9f86-d081 underscored_name don't."
)


def fingerprint(tokenizer: Tokenizer) -> str:
    """sha256 of a tokenizer's vocabulary and of how it reads a text: items are fitted to one."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    read = json.dumps([vocabulary, list(tokenizer(_PROBE)["input_ids"])])
    return hashlib.sha256(read.encode()).hexdigest()


class Counter:
    """Counts tokens as a model reads them, special tokens among them.

    Args:
        tokenizer: one of transformers.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._backend = _backend(tokenizer)

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """The length of each text in tokens."""
        if self._backend is not None:
            return [len(encoding) for encoding in self._backend.encode_batch_fast(list(texts))]
        found = self._tokenizer(list(texts), return_attention_mask=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]


def _backend(tokenizer: Tokenizer) -> Tokenizer:
    """The Rust tokenizer behind most of them, or None: it counts in half of the time."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend
