"""A run on disk: `run.json` and append-only `samples.jsonl`, safe against kills and second writers.

A line counts once its line break is on the disk; what a kill leaves behind it is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from msa_harness.files import append_durably, lock_directory, os_error, unlock, write_atomic
from msa_harness.samples import (
    ERROR,
    INVALID,
    NOT_FINITE,
    SCHEMA,
    WRONG,
    Key,
    RunError,
    RunHeader,
    Sample,
    finite,
    header_from_dict,
    log_ratio,
    sample_from_dict,
)

__all__ = [
    "ERROR",
    "INVALID",
    "NOT_FINITE",
    "SCHEMA",
    "WRONG",
    "Key",
    "RunError",
    "RunHeader",
    "RunStore",
    "Sample",
    "finite",
    "log_ratio",
    "write_atomic",
]

HEADER = "run.json"
SAMPLES = "samples.jsonl"


class RunStore:
    """A run directory, open for reading or for appending.

    Use `create` for a new run, `open` for an old one. A context manager; `close` gives the lock up.

    Attributes:
        directory: The run directory.
        header: What the run is about.
        notes: What was repaired while opening, in words.
    """

    def __init__(self, directory: Path, header: RunHeader, lock: int | None) -> None:
        """Internal; use `create` or `open`."""
        self.directory = directory
        self.header = header
        self.notes: list[str] = []
        self._lock = lock
        self._samples: dict[Key, Sample] = {}

    @classmethod
    def create(cls, directory: Path | str, header: RunHeader) -> RunStore:
        """Start a run in a directory that holds none.

        Raises:
            RunError: The directory cannot be written, or holds a run already.
        """
        path = Path(directory)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise os_error("create run directory", path, error) from error
        lock = lock_directory(path)
        samples = path / SAMPLES
        if (path / HEADER).exists() or (samples.exists() and samples.stat().st_size):
            unlock(lock)
            raise RunError(f"{path}: wanted a directory without a run, got one; resume it instead")
        try:
            # The header last: with it there, a killed start can be resumed, without it, repeated.
            write_atomic(samples, "")
            write_atomic(path / HEADER, header.to_json() + "\n")
        except RunError:
            unlock(lock)
            raise
        return cls(path, header, lock)

    @classmethod
    def open(
        cls,
        directory: Path | str,
        *,
        resume: bool = False,
        expect: RunHeader | None = None,
    ) -> RunStore:
        """Open a recorded run.

        Args:
            directory: The run directory.
            resume: Take the lock and allow `append`; a torn last line is cut off.
            expect: What the caller is about to append; the run must be about the same subjects,
                judge, profile, seed and gates.

        Raises:
            RunError: No run there, or a foreign, corrupt or differently versioned one; the text
                names file, line, what was wanted and what came.
        """
        path = Path(directory)
        header = _read_header(path / HEADER)
        if expect is not None and (names := header.differs(expect)):
            raise RunError(
                f"{path / HEADER}: wanted the run that is to be resumed, got one that differs in "
                f"{', '.join(names)}; start a new run directory"
            )
        store = cls(path, header, lock_directory(path) if resume else None)
        try:
            store._read_samples()
        except RunError:
            store.close()
            raise
        return store

    def append(self, samples: Iterable[Sample]) -> None:
        """Add samples durably: on return they are on the disk, on an error none of them is.

        Raises:
            RunError: The store is read-only, a key is there already, or the disk is full.
        """
        if self._lock is None:
            raise RunError(f"{self.directory}: wanted a run opened to append, got one to read")
        new: dict[Key, Sample] = {}
        for sample in samples:
            if sample.key in self._samples or sample.key in new:
                raise RunError(f"{self.directory}: sample {sample.key} is recorded already")
            new[sample.key] = sample
        if not new:
            return
        data = "".join(sample.to_json() + "\n" for sample in new.values()).encode(
            "utf-8", "backslashreplace"
        )
        path = self.directory / SAMPLES
        try:
            append_durably(path, data)
        except OSError as error:
            kept = f"{len(self._samples)} samples are kept, the {len(new)} measured last are not"
            raise os_error("append to", path, error, kept) from error
        self._samples |= new

    def samples(self) -> list[Sample]:
        """All samples, in the order of the file."""
        return list(self._samples.values())

    def done_keys(self) -> set[Key]:
        """Keys (suite, series, subject, item) that need not be measured again."""
        return set(self._samples)

    def close(self) -> None:
        """Give up the lock; the store can still be read."""
        if self._lock is not None:
            unlock(self._lock)
            self._lock = None

    def __enter__(self) -> RunStore:
        """The store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up the lock."""
        self.close()

    def _read_samples(self) -> None:
        path = self.directory / SAMPLES
        try:
            data = path.read_bytes()
        except OSError as error:
            raise os_error("read", path, error) from error
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            number = data.count(b"\n") + 1
            self.notes.append(f"{path}:{number}: dropped a torn last line ({len(data) - whole} B)")
            if self._lock is not None:
                try:
                    os.truncate(path, whole)
                except OSError as error:
                    raise os_error("cut the torn last line off", path, error) from error
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                sample = sample_from_dict(json.loads(line))
                if sample.key in self._samples:
                    raise ValueError(f"wanted each sample once, got {sample.key} again")
            except (ValueError, UnicodeDecodeError) as error:
                raise RunError(f"{path}:{number}: {error}") from error
            self._samples[sample.key] = sample


def _read_header(path: Path) -> RunHeader:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunError(
            f"{path.parent}: wanted a run directory, got none ({path} is missing)"
        ) from (error)
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: wanted JSON, got bytes that are not UTF-8") from error
    except OSError as error:
        raise os_error("read", path, error) from error
    try:
        return header_from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise RunError(f"{path}:{error.lineno}: wanted JSON, got a broken text: {error.msg}") from (
            error
        )
    except ValueError as error:
        raise RunError(f"{path}: {error}") from error
