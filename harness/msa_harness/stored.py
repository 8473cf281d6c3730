"""Input sets written once and mapped by every worker that gets them.

A run hands the same hundreds of megabytes to a pair of fresh processes in every block. They lie in
a sealed file in memory: a worker maps its own copy-on-write view, and neither it nor the code under
test can change what the next worker sees.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from msa_harness import protocol

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class StoredSets:
    """Sets of inputs, `{"args": [...], "kwargs": {...}}`, in memory. A context manager."""

    def __init__(self, sets: Sequence[Mapping[str, Any]]) -> None:
        """Write the sets.

        Raises:
            TypeError: Something in them is not a plain value; the text says where.
        """
        whole = [
            {"args": list(one.get("args", ())), "kwargs": dict(one.get("kwargs", {}))}
            for one in sets
        ]
        values = protocol.plain(whole, "inputs")
        self._file = os.fdopen(os.memfd_create("msa-inputs", os.MFD_ALLOW_SEALING), "w+b")
        self._at = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        try:
            torch.save(values, self._file)
            self._file.flush()
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """Where processes of the same user find them; who has mapped them keeps them.

        Raises:
            ValueError: Closed; another file may have the descriptor by now.
        """
        if self._file.closed:
            raise ValueError("inputs: wanted open stored sets, got closed ones")
        return self._at

    def close(self) -> None:
        """Let go of them. May be called twice."""
        self._file.close()

    def __enter__(self) -> StoredSets:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def mapped(path: str) -> object:
    """The sets at a path, as views of the file: what is written into them stays in this process."""
    return torch.load(path, mmap=True, weights_only=True, map_location="cpu")
