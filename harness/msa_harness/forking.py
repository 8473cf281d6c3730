"""The process that workers are forked from: ``python -m msa_harness.forking SOCKET MODULE...``.

It has one thread and runs no code under test. Each request on the socket brings the four
descriptors of a worker: its two pipes, its stderr, and one on which its process id is said at once
and its exit status when it ends. When the socket closes it ends, and the kernel ends its workers.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

#: Bytes of a request: arguments and an environment.
_REQUEST = 1 << 18


def serve(requests: socket.socket) -> tuple[dict[str, Any], tuple[int, int, int]] | None:
    """Fork workers until the socket closes.

    Returns:
        In a worker its request and its descriptors; None in this process, at the end.
    """
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    running: dict[int, int] = {}
    watched = [requests.fileno(), awake]
    while True:
        ready = select.select(watched, [], [])[0]
        if awake in ready:
            os.read(awake, 4096)
            _report_ended(running)
        if requests.fileno() not in ready:
            continue
        text, descriptors, _, _ = socket.recv_fds(requests, _REQUEST, 4)
        if not text:
            return None
        receive, send, errors, status = descriptors
        try:
            pid = os.fork()
        except OSError:  # no room for another process: the closed pipes say so
            for theirs in descriptors:
                os.close(theirs)
            continue
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in (awake, waker, status, *running.values()):
                os.close(other)
            requests.close()
            return json.loads(text), (receive, send, errors)
        running[pid] = status
        _say(status, pid)
        for theirs in (receive, send, errors):
            os.close(theirs)


def _report_ended(running: dict[int, int]) -> None:
    for pid, status in list(running.items()):
        found, code = os.waitpid(pid, os.WNOHANG)
        if found:
            _say(status, os.waitstatus_to_exitcode(code))
            os.close(running.pop(pid))


def _say(status: int, number: int) -> None:
    try:
        os.write(status, f"{number}\n".encode())
    except BrokenPipeError:
        return  # nobody waits for this worker any more


def main(arguments: list[str]) -> None:
    """Import what is shared, then serve; in a worker, become one."""
    for module in arguments[1:]:
        with suppress(Exception):  # who needs it will say so, in a worker of its own
            import_module(module)
    found = serve(socket.socket(fileno=int(arguments[0])))
    if found is None:
        return
    from msa_harness import worker

    request, (receive, send, errors) = found
    os.setsid()
    os.dup2(errors, 2)
    os.close(errors)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = request["env"]["PYTHONPATH"].split(os.pathsep)
    sys.dont_write_bytecode = True
    worker.main([str(receive), str(send), str(os.getppid()), *request["arguments"]])


if __name__ == "__main__":
    main(sys.argv[1:])
