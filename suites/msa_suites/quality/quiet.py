"""Keeping other people's progress bars and hints off stderr, and nothing else."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import TextIO


class WithoutBars(io.TextIOBase):
    """A text stream that passes on everything but progress bars, which start with a return."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._in_bar = False

    def write(self, text: str, /) -> int:
        is_bar = text.startswith("\r") or (self._in_bar and not text.strip())
        self._in_bar = is_bar
        if not is_bar:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it lm-eval draws no bars and gives no hints; its errors, and warnings, still show."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(WithoutBars(sys.stderr)):
            yield
    finally:
        logger.setLevel(level)
