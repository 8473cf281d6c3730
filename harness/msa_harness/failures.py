"""How a worker can fail its judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class WorkerError(RuntimeError):
    """The subject's process did not do what it was asked."""


class WorkerTimeoutError(WorkerError):
    """It did not answer in time and was killed, with all its children."""


class WorkerCrashedError(WorkerError):
    """It ended without an answer."""


class WorkerMemoryError(WorkerCrashedError):
    """It took more memory than it may and was killed, with all its children."""


class CallFailedError(WorkerError):
    """The code under test raised; the worker lives on.

    Attributes:
        kind: "raised", "mutated" (it wrote into its inputs) or "output" (it returned what cannot be
            checked).
        type: Name of the exception.
        message: Its text.
        traceback: End of its traceback.
    """

    def __init__(self, who: str, reply: Mapping[str, Any]) -> None:
        self.kind = str(reply["kind"])
        self.type = str(reply["type"])
        self.message = str(reply["message"])
        self.traceback = str(reply["traceback"])
        super().__init__(f"{who}: {self.type}: {self.message}")
