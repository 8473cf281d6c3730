"""Writing that survives kills, full disks and second writers, with plain words on failure.

The lock is the operating system's (flock), so it dies with its writer and can never be stale; the
process id inside serves the message only.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msa_harness.samples import RunError

LOCK = "run.lock"


_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file may not grow beyond the limit of this process (ulimit -f)",
}
_CLOSED = {errno.EACCES: "no permission", errno.EROFS: "the file system is read-only"}


def os_error(action: str, path: Path, error: OSError, kept: str = "") -> RunError:
    """What went wrong with a file, for people.

    Args:
        action: What was tried, "append to".
        path: The file.
        error: What the system answered.
        kept: What is lost and what is not, where there is no room; everything recorded is kept.
    """
    number = error.errno or 0
    if number in _FULL:
        kept = kept or "what was recorded is kept"
        return RunError(
            f"cannot {action} {path}: {_FULL[number]}; {kept}; make room and go on with --resume"
        )
    hint = _CLOSED.get(number, error.strerror or str(error))
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
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise os_error("write", path, error) from error


def append_durably(path: Path, data: bytes) -> None:
    """Add bytes to a file and wait until they are on the disk; on an error none of them is."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    size = os.fstat(file).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    except OSError:
        with suppress(OSError):  # a torn last line is dropped when the run is opened again
            os.ftruncate(file, size)
        raise
    finally:
        os.close(file)


def lock_directory(directory: Path) -> int:
    """Take the lock of a run directory, or say who holds it."""
    path = directory / LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise os_error("lock", path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 100).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise RunError(
            f"{directory}: wanted to write alone, got a second writer (process {holder} is "
            "running there)"
        ) from error
    with suppress(OSError):  # on a full disk the lock holds without a name in it
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def unlock(lock: int) -> None:
    """Give a lock up."""
    os.close(lock)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Nobody else writes into a run directory meanwhile; it is made where it is missing.

    Raises:
        RunError: Somebody writes there, or nobody can.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error("create run directory", directory, error) from error
    lock = lock_directory(directory)
    try:
        yield
    finally:
        unlock(lock)


def check_writable(directory: Path) -> None:
    """Refuse at once a run directory that cannot be written, or in which a run is going on.

    Raises:
        RunError: The text names the directory and why.
    """
    if directory.is_dir():
        with alone(directory):
            return
    parent = next((one for one in directory.absolute().parents if one.exists()), directory)
    if not parent.is_dir():
        raise RunError(f"cannot create run directory {directory}: {parent} is no directory")
    if not os.access(parent, os.W_OK):
        raise RunError(
            f"cannot create run directory {directory}: {parent} is read-only, or not ours to write"
        )
