"""The text the embedded model reads: the standard library of the running CPython.

It is on every machine that has Python (PSF licence), it needs no download, and it mixes prose
(docstrings, the help topics) with source. Files, not lines, are split into training and held-out
parts, by the hash of their path, so that a file never stands on both sides.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Characters that open a fact or a query. They are removed from the text, so that the only
#: facts in a context are those that were put there.
FACT_MARK, QUERY_MARK = b"@", b"?"

#: Share of the files that is held out, in 1/256.
HELD_OUT_OF_256 = 26

#: Folders that hold tables, generated code or tests' data rather than prose or source.
_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "ensurepip"}
)


@dataclass(frozen=True)
class Corpus:
    """Two byte streams and the hash of what they were made from."""

    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    sha256: str


def clean(raw: bytes) -> bytes:
    """ASCII text without the two marks; other bytes and carriage returns are dropped."""
    kept = bytes(b for b in raw if b == 10 or 32 <= b < 127)
    return kept.replace(FACT_MARK, b"").replace(QUERY_MARK, b"")


def load_corpus(root: Path | None = None) -> Corpus:
    """Read every ``*.py`` below ``root`` (default: the running interpreter's standard library).

    Raises:
        FileNotFoundError: ``root`` holds too little text to train on.
    """
    base = root or Path(sysconfig.get_path("stdlib"))
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    digest = hashlib.sha256()
    for path in sorted(base.rglob("*.py")):
        relative = path.relative_to(base)
        if _SKIPPED_FOLDERS.intersection(relative.parts):
            continue
        text = clean(path.read_bytes())
        digest.update(relative.as_posix().encode() + b"\0" + text)
        first = hashlib.sha256(relative.as_posix().encode()).digest()[0]
        sides[first < HELD_OUT_OF_256].append(text)
    train, held_out = (np.frombuffer(b"\n".join(side), dtype=np.uint8) for side in sides)
    if min(len(train), len(held_out)) < 65_536:
        raise FileNotFoundError(
            f"text root {base}: wanted at least 64 KiB of Python files on each side of the "
            f"split, got {len(train)} training and {len(held_out)} held-out bytes"
        )
    return Corpus(train, held_out, digest.hexdigest())
