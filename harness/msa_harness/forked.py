"""Workers forked from one process that has imported what takes seconds to import.

Whoever starts hundreds of short workers on one installation saves most of their time. A gate does
not: its workers start from nothing, each with an interpreter and a memory layout of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from io import BufferedReader
from multiprocessing import forkserver, resource_tracker
from multiprocessing import process as processes
from multiprocessing.connection import Connection
from subprocess import TimeoutExpired

_FORKS = multiprocessing.get_context("forkserver")
_MAIN = "msa_harness.worker:main"
#: What an interpreter reads only when it starts; as a worker that starts from nothing has it.
_AT_START = {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}


def share(modules: Sequence[str]) -> None:
    """Start the process that workers are forked from. Once it runs, later calls change nothing.

    Args:
        modules: What it imports. They must start no threads, and be no code that is under test.
    """
    _FORKS.set_forkserver_preload(list(modules))
    # An interrupt while it imports would print a traceback of its own.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    ours = dict(os.environ)
    try:
        os.environ.update(_AT_START)
        forkserver.ensure_running()
    finally:
        for name in _AT_START.keys() - ours.keys():
            del os.environ[name]
        os.environ.update(ours)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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

        Raises:
            EOFError: The process to fork it from has ended.
        """
        reader, writer = _FORKS.Pipe(duplex=False)
        pipes = [Connection(os.dup(ends[0]), writable=False)]
        pipes += [Connection(os.dup(ends[1]), readable=False), writer]
        self._process = _FORKS.Process(
            target=_serve, args=(pipes, tuple(arguments), cwd, dict(env)), daemon=True
        )
        try:
            self._process.start()
        finally:
            for pipe in pipes:
                pipe.close()
        # Each start looks at all children that are known, and would take the exit status away from
        # the thread that waits for it.
        processes._children.discard(self._process)  # type: ignore[attr-defined]
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
    # While anyone holds this open, the process we come from outlives its judge, and so do we.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    # Locks of a worker that is killed are its own tracker's to clear away, in silence, not ours.
    resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    sys.dont_write_bytecode = True
    receive, send, errors = (os.dup(pipe.fileno()) for pipe in pipes)
    for pipe in pipes:
        pipe.close()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((nothing, 0), (errors, 2)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    module, _, name = _MAIN.partition(":")
    main: Callable[[Sequence[str]], None] = getattr(import_module(module), name)
    main([str(receive), str(send), str(os.getppid()), *arguments])
