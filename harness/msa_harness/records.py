"""A run on disk: `run.json` and append-only `samples.jsonl`, safe against kills and second writers.

A line counts once its line break is on the disk; what a kill leaves behind it is dropped. The lock
is the operating system's (flock), so it dies with its writer and can never be stale; the process
id inside serves the message only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

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
    "write_atomic",
]

HEADER = "run.json"
SAMPLES = "samples.jsonl"
LOCK = "run.lock"


def _os_error(action: str, path: Path, error: OSError) -> RunError:
    hint = {
        errno.ENOSPC: "the disk is full; free space and resume, nothing recorded is lost",
        errno.EDQUOT: "the quota is used up; free space and resume, nothing recorded is lost",
        errno.EACCES: "no permission",
        errno.EROFS: "the file system is read-only",
    }.get(error.errno or 0, error.strerror or str(error))
    return RunError(f"cannot {action} {path}: {hint}")


def write_atomic(path: Path, text: str) -> None:
    """Write a whole text file so that a reader sees the old text or the new one, never a part.

    Raises:
        RunError: The disk is full or the directory cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _os_error("write", path, error) from error


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
            raise _os_error("create run directory", path, error) from error
        lock = _acquire(path)
        if (path / HEADER).exists() or (path / SAMPLES).exists():
            os.close(lock)
            raise RunError(f"{path}: wanted a directory without a run, got one; resume it instead")
        try:
            write_atomic(path / HEADER, header.to_json() + "\n")
            write_atomic(path / SAMPLES, "")
        except RunError:
            os.close(lock)
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
        store = cls(path, header, _acquire(path) if resume else None)
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
        data = "".join(sample.to_json() + "\n" for sample in new.values()).encode()
        path = self.directory / SAMPLES
        try:
            _append_durably(path, data)
        except OSError as error:
            raise _os_error("append to", path, error) from error
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
            os.close(self._lock)
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
            raise _os_error("read", path, error) from error
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            number = data.count(b"\n") + 1
            self.notes.append(f"{path}:{number}: dropped a torn last line ({len(data) - whole} B)")
            if self._lock is not None:
                try:
                    os.truncate(path, whole)
                except OSError as error:
                    raise _os_error("cut the torn last line off", path, error) from error
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                sample = sample_from_dict(json.loads(line))
                if sample.key in self._samples:
                    raise ValueError(f"wanted each sample once, got {sample.key} again")
            except (ValueError, UnicodeDecodeError) as error:
                raise RunError(f"{path}:{number}: {error}") from error
            self._samples[sample.key] = sample


def _append_durably(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    size = os.fstat(file).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise
    finally:
        os.close(file)


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
        raise _os_error("read", path, error) from error
    try:
        return header_from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise RunError(f"{path}:{error.lineno}: wanted JSON, got a broken text: {error.msg}") from (
            error
        )
    except ValueError as error:
        raise RunError(f"{path}: {error}") from error


def _acquire(directory: Path) -> int:
    path = directory / LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _os_error("lock", path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 100).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise RunError(
            f"{directory}: wanted to write alone, got a second writer (process {holder})"
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
