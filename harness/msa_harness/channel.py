"""The private pipe to a worker process: starting, frames, deadlines, and plain words on failure."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from msa_harness import protocol
from msa_harness.failures import (
    CallFailedError,
    WorkerCrashedError,
    WorkerError,
    WorkerMemoryError,
    WorkerTimeoutError,
)
from msa_harness.forked import Forked
from msa_harness.resident import LOOK_SECONDS, MemoryLimit
from msa_harness.subjects import Subject

HARNESS = Path(__file__).resolve().parent.parent
_STDERR_CHARACTERS = 4000
# Tensors go through the pipes; the default of 64 KiB wakes both sides for every piece.
_PIPE_BYTES = 1 << 20

_Process: TypeAlias = "subprocess.Popen[bytes] | Forked"
_Start: TypeAlias = Callable[[tuple[int, int], Sequence[str], Mapping[str, str]], _Process]


class Channel:
    """A worker process and the two pipes to it.

    Attributes:
        who: "worker of head", for messages.
        start_seconds: From the start of the process until it answered.
        pid: Its process id.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        threads: int,
        judge_paths: Sequence[Path],
        device: str,
        timeout: float,
        memory: float | None = None,
        forked: bool = False,
    ) -> None:
        """Start the process and wait until it answers.

        Raises:
            WorkerError: It did not start; the text has the end of its stderr.
        """
        self.who = f"worker of {subject.label}"
        self._subject = subject
        self._number = 0
        self._limit = timeout  # of the request under way, for messages
        self._tail: deque[bytes] = deque(maxlen=64)
        self._directory = tempfile.TemporaryDirectory(prefix="msa-worker-")
        began = time.perf_counter()
        start = self._fork if forked else self._spawn
        self._process, self._send, self._receive = self._start(start, threads, judge_paths, device)
        self._memory = MemoryLimit(self._process.pid, memory)
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()
        try:
            hello = self._read(began + timeout, "start")
            if hello.get("protocol") != protocol.VERSION:
                raise WorkerError(
                    f"{self.who}: wanted protocol {protocol.VERSION}, got {hello.get('protocol')}"
                )
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - began
        self.pid = self._process.pid

    def ask(self, op: str, request: Mapping[str, object], timeout: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            CallFailedError: The code under test raised.
            WorkerTimeoutError: No answer in time.
            WorkerCrashedError: The process ended.
        """
        if self._send < 0:
            raise WorkerError(f"{self.who}: wanted an open worker, got a closed one")
        self._number += 1
        self._limit = timeout
        deadline = time.perf_counter() + timeout
        frame = protocol.encode({"op": op, "id": self._number, **request})
        self._write(frame, deadline, op)
        reply = self._read(deadline, op)
        if reply.get("id") != self._number:
            self.close()
            raise WorkerError(f"{self.who}: wanted answer {self._number}, got {reply.get('id')}")
        if not reply["ok"]:
            raise CallFailedError(self.who, reply)
        return reply

    def close(self) -> None:
        """End the process and all its children. May be called twice."""
        for pipe in (self._send, self._receive):
            if pipe >= 0:
                os.close(pipe)
        self._send = self._receive = -1
        # The group is its own session: children the subject left behind go too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=5)
        if self._process.stderr is not None and not self._reader.is_alive():
            self._process.stderr.close()
        self._directory.cleanup()

    def _start(
        self, start: _Start, threads: int, judge_paths: Sequence[Path], device: str
    ) -> tuple[_Process, int, int]:
        theirs, send = os.pipe()
        receive, answers = os.pipe()
        roots = [HARNESS, *judge_paths, *self._subject.roots]
        environment = {
            **{name: text for name, text in os.environ.items() if name != "PYTHONHOME"},
            "PYTHONPATH": os.pathsep.join(str(Path(root).resolve()) for root in roots),
            "PYTHONDONTWRITEBYTECODE": "1",  # nothing is written into anybody's checkout
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        try:
            process = start((theirs, answers), [str(threads), device], environment)
        except OSError as error:
            os.close(send)
            os.close(receive)
            self._directory.cleanup()
            raise WorkerError(
                f"{self.who}: wanted to start {self._subject.python}, got {error.strerror}"
            ) from error
        finally:
            os.close(theirs)
            os.close(answers)
        for pipe in (send, receive):
            os.set_blocking(pipe, False)
            with contextlib.suppress(OSError):  # the user's pipes may have used up their share
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return process, send, receive

    def _spawn(
        self, ends: tuple[int, int], arguments: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """A process from nothing."""
        command = [self._subject.python, "-P", "-m", "msa_harness.worker"]
        command += [*map(str, ends), str(os.getpid()), *arguments]
        return subprocess.Popen(
            command,
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self._directory.name,
            env=environment,
            start_new_session=True,
        )

    def _fork(
        self, ends: tuple[int, int], arguments: Sequence[str], environment: Mapping[str, str]
    ) -> Forked:
        """A process with what it imports already there."""
        return Forked(arguments, ends, self._directory.name, environment, timeout=self._limit)

    def _drain(self) -> None:
        """Keep the end of stderr, and never let the subject block on it."""
        stream = self._process.stderr
        while stream is not None and (data := os.read(stream.fileno(), 65536)):
            self._tail.append(data)

    def _stderr(self) -> str:
        self._reader.join(timeout=1)
        return b"".join(list(self._tail)).decode(errors="replace")[-_STDERR_CHARACTERS:].strip()

    def _wait(self, pipe: int, event: int, deadline: float, op: str) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        while (left := deadline - time.perf_counter()) > 0:
            if poll.poll(min(left, LOOK_SECONDS) * 1000):
                return
            if too_much := self._memory.exceeded():
                self.close()
                raise WorkerMemoryError(f"{self.who}: {op}: {too_much}")
        self.close()
        raise WorkerTimeoutError(
            f"{self.who}: {op} took longer than {self._limit:g} s and was killed"
        )

    def _write(self, frame: memoryview, deadline: float, op: str) -> None:
        left = frame
        while left:
            self._wait(self._send, select.POLLOUT, deadline, op)
            try:
                left = left[os.write(self._send, left) :]
            except BrokenPipeError as error:
                raise self._crashed(op) from error

    def _read(self, deadline: float, op: str) -> dict[str, Any]:
        header = self._read_exactly(protocol.HEADER.size, deadline, op)
        try:
            length = protocol.frame_length(header)
        except ValueError as error:
            self.close()
            raise WorkerError(f"{self.who}: {error}") from error
        return protocol.decode(self._read_exactly(length, deadline, op))

    def _read_exactly(self, size: int, deadline: float, op: str) -> bytearray:
        data = bytearray(size)
        view, have = memoryview(data), 0
        while have < size:
            self._wait(self._receive, select.POLLIN, deadline, op)
            count = os.readv(self._receive, [view[have:]])
            if count == 0:
                raise self._crashed(op)
            have += count
        return data

    def _crashed(self, op: str) -> WorkerCrashedError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0  # it closed its pipe and goes on; close() ends it
        how = f"exit status {code}"
        if code < 0:
            how = f"signal {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (so the kernel ends a process where memory runs out)"
        stderr = self._stderr()
        self.close()
        text = f"; its stderr ends:\n{stderr}" if stderr else ""
        return WorkerCrashedError(f"{self.who}: {op} ended the process with {how}{text}")
