"""Workers forked from one process that has imported what takes seconds to import.

Whoever starts hundreds of short workers on one installation saves most of their time. Those of
timed pairs start from nothing all the same, each with an interpreter and memory of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

_HARNESS = Path(__file__).resolve().parent.parent


class _Origin:
    """The process that workers are forked from. It ends with this one, which holds its socket."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "msa_harness.forking", str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(_HARNESS), "PYTHONHASHSEED": "0"},
                start_new_session=True,  # an interrupt is for the judge, who ends its workers
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End it, and all its workers."""
        atexit.unregister(self.close)
        self.requests.close()
        self.process.kill()
        self.process.wait()


_origins: list[_Origin] = []


def share(modules: Sequence[str]) -> None:
    """Start the process that workers are forked from. While it runs, later calls change nothing.

    Args:
        modules: What it imports, as far as it is installed. They must start no threads, and be no
            code that is under test.
    """
    if _origins and _origins[-1].process.poll() is not None:
        _origins.pop().close()
    if not _origins:
        _origins.append(_Origin(modules))


@contextmanager
def sharing(modules: Sequence[str]) -> Iterator[None]:
    """`share` for as long as the context; a process that is there before is used, and stays."""
    there = bool(_origins) and _origins[-1].process.poll() is None
    share(modules)
    try:
        yield
    finally:
        if not there:
            _origins.pop().close()


class Forked:
    """A worker that shares its start; of `subprocess.Popen` what a channel needs.

    Attributes:
        pid: Its process id.
        stderr: What it writes there.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        ends: tuple[int, int],
        cwd: str,
        env: Mapping[str, str],
        *,
        timeout: float,
    ) -> None:
        """Fork it.

        Args:
            arguments: Of `worker.main`, after its two descriptors and its parent.
            ends: The worker's ends of the pipes, read and write.
            cwd: Its working directory.
            env: Its environment.
            timeout: Seconds until it must be there.

        Raises:
            OSError: The process to fork it from has ended, or does not answer in time.
        """
        if not _origins:
            raise ChildProcessError(0, "no process to fork it from: share() was not called")
        self._status, status = os.pipe()
        errors, stderr = os.pipe()
        self.stderr: BufferedReader = os.fdopen(errors, "rb")
        request = json.dumps({"arguments": list(arguments), "cwd": cwd, "env": dict(env)})
        try:
            try:
                descriptors = [*ends, stderr, status]
                socket.send_fds(_origins[-1].requests, [request.encode()], descriptors)
            finally:  # the other process has its own by now, and its end must show here
                for end in (stderr, status):
                    os.close(end)
            self.pid = self._line(timeout)
        except BaseException:
            os.close(self._status)
            self.stderr.close()
            raise
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self._code is None:
            try:
                self._code = self._line(timeout)
            except TimeoutError as error:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0) from error
            except ChildProcessError:
                self._code = -signal.SIGKILL  # the kernel ends a worker with its parent
            os.close(self._status)
        return self._code

    def _line(self, timeout: float | None) -> int:
        """The next number that the other process says of this one."""
        if not select.select([self._status], [], [], timeout)[0]:
            raise TimeoutError(0, "no answer of the process to fork it from")
        text = b""
        while not text.endswith(b"\n"):
            read = os.read(self._status, 1)
            if not read:
                raise ChildProcessError(0, "no answer: the process to fork it from has ended")
            text += read
        return int(text)
