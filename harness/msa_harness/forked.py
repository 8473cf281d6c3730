"""Workers forked from one process that has imported what takes seconds to import.

Whoever starts hundreds of short workers on one installation saves most of their time. A gate does
not: its workers start from nothing, each with an interpreter and a memory layout of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from io import BufferedReader
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from subprocess import TimeoutExpired

_FORKS = multiprocessing.get_context("forkserver")
_MAIN = "msa_harness.worker:main"


def share(modules: Sequence[str]) -> None:
    """Name what is imported before workers are forked; for the first of them to be started.

    Args:
        modules: They must start no threads, and be no code that is under test.
    """
    _FORKS.set_forkserver_preload(list(modules))


class Forked:
    """A worker that shares its start; of `subprocess.Popen` what a channel needs.

    Attributes:
        pid: Its process id.
        stderr: What it writes there.
    """

    def __init__(
        self, arguments: Sequence[str], ends: tuple[int, int], cwd: str, env: Mapping[str, str]
    ) -> None:
        """Fork it.

        Args:
            arguments: Of `worker.main`, after its two descriptors and its parent.
            ends: The worker's ends of the pipes, read and write.
            cwd: Its working directory.
            env: Its environment.
        """
        reader, writer = _FORKS.Pipe(duplex=False)
        pipes = [Connection(os.dup(ends[0]), writable=False)]
        pipes += [Connection(os.dup(ends[1]), readable=False), writer]
        self._process = _FORKS.Process(
            target=_serve, args=(pipes, tuple(arguments), cwd, dict(env)), daemon=True
        )
        self._process.start()
        for pipe in pipes:
            pipe.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.stderr: BufferedReader = os.fdopen(os.dup(reader.fileno()), "rb")
        reader.close()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal.

        Raises:
            TimeoutExpired: It still runs.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired("worker", timeout or 0.0)
        return self._process.exitcode


def _serve(
    pipes: Sequence[Connection], arguments: Sequence[str], cwd: str, env: Mapping[str, str]
) -> None:
    """In the new process: what `Popen` would have done before the program begins."""
    # Locks of a worker that is killed are its own tracker's to clear away, in silence, not ours.
    resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined]
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    sys.dont_write_bytecode = True
    receive, send, errors = (os.dup(pipe.fileno()) for pipe in pipes)
    for pipe in pipes:
        pipe.close()
    os.dup2(errors, 2)
    module, _, name = _MAIN.partition(":")
    main: Callable[[Sequence[str]], None] = getattr(import_module(module), name)
    main([str(receive), str(send), str(os.getppid()), *arguments])
