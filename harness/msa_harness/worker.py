"""The subject's process: loads the code under test, calls it, times it, and answers in frames.

Started by `client.Worker` as `python -P -m msa_harness.worker`. It runs in the environment of the
code under test, which may hold nothing but torch. The clock is taken before any of that code is
loaded, so replacing `time.perf_counter_ns` does not reach it; the subject's prints go to stderr.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from msa_harness import protocol
from msa_harness.attestation import module_info
from msa_harness.guard import Guard, InputMutatedError
from msa_harness.inputs import InputSets
from msa_harness.memory import memory_of
from msa_harness.outputs import OutputError, checked, few_rows
from msa_harness.protocol import Tree
from msa_harness.stored import mapped
from msa_harness.vector_math import settle

_clock: Callable[[], int] = time.perf_counter_ns
_sleep: Callable[[float], None] = time.sleep
# Threads of OpenMP spin for about a millisecond after a parallel region: a call must not meet those
# of the other worker, which has just answered.
_SETTLE_SECONDS = 0.002
_TRACEBACK_CHARACTERS = 4000


class _Server:
    """Holds what requests name by handle, and answers them."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._objects: dict[str, Any] = {}
        self._inputs: dict[str, InputSets] = {}

    def answer(self, request: Mapping[str, Any]) -> dict[str, object]:
        """The reply to one request; what the subject raises becomes part of it."""
        actions = {
            "load": self._load,
            "put": self._put,
            "call": self._call,
            "time": self._time,
            "memory": self._memory,
            "info": self._info,
            "drop": self._drop,
        }
        try:
            if request.get("op") not in actions:
                raise ValueError(f"op: wanted one of {', '.join(actions)}, got {request.get('op')}")
            return {"ok": True, **actions[request["op"]](request)}
        except BaseException as error:  # noqa: BLE001 - whatever the subject raises is its answer
            text = "".join(traceback.format_exception(error))
            return {
                "ok": False,
                "kind": _kind(error),
                "type": type(error).__name__,
                "message": str(error),
                "traceback": text[-_TRACEBACK_CHARACTERS:],
            }

    def _lookup(self, handle: str) -> Tree:
        if handle not in self._objects:
            raise KeyError(f"handle: wanted one of {sorted(self._objects)}, got {handle!r}")
        return self._objects[handle]

    def _operation(self, request: Mapping[str, Any]) -> Callable[..., object]:
        operation: Callable[..., object] = _attribute(
            self._lookup(request["handle"]), request["operation"]
        )
        return operation

    def _arguments(self, request: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        args: Any = protocol.resolved(request.get("args", []), self._lookup)
        kwargs: Any = protocol.resolved(request.get("kwargs", {}), self._lookup)
        return list(args), dict(kwargs)

    def _load(self, request: Mapping[str, Any]) -> dict[str, object]:
        module, _, path = str(request["target"]).partition(":")
        loaded = _attribute(importlib.import_module(module), path)
        if request["build"]:
            args, kwargs = self._arguments(request)
            loaded = loaded(*args, **kwargs)
        self._objects[request["handle"]] = loaded
        gc.collect()
        gc.freeze()
        operations = [name for name in dir(loaded) if not name.startswith("_")]
        return {"type": type(loaded).__name__, "operations": operations}

    def _put(self, request: Mapping[str, Any]) -> dict[str, object]:
        sets = protocol.resolved(mapped(request["path"]), self._lookup)
        self._inputs[request["handle"]] = InputSets(
            sets, self._device, request["vary"], request["seed"], shift=request["shift"]
        )
        return {"sets": len(self._inputs[request["handle"]])}

    def _drop(self, request: Mapping[str, Any]) -> dict[str, object]:
        self._inputs.pop(request["handle"], None)
        self._objects.pop(request["handle"], None)
        return {}

    def _call(self, request: Mapping[str, Any]) -> dict[str, object]:
        operation = self._operation(request)
        args, kwargs = self._arguments(request)
        if self._device != "cpu":
            args, kwargs = protocol.moved((args, kwargs), torch.device(self._device))
        guard = Guard([args, kwargs]) if request["check_inputs"] else None
        if request["seed"] is not None:
            torch.manual_seed(request["seed"])
        with torch.set_grad_enabled(request["grad"]):
            output = operation(*args, **kwargs)
        _synchronise()
        if guard is not None:
            guard.check()
        if request["keep"]:
            self._objects[request["keep"]] = output
            return {"output": None}
        return {"output": checked(output)}

    def _sets(self, request: Mapping[str, Any]) -> InputSets:
        handle = request["inputs"]
        if handle not in self._inputs:
            raise KeyError(f"inputs: wanted one of {sorted(self._inputs)}, got {handle!r}")
        return self._inputs[handle]

    def _time(self, request: Mapping[str, Any]) -> dict[str, object]:
        operation, sets = self._operation(request), self._sets(request)
        seconds: list[float] = []
        reply: dict[str, object] = {}
        quiet = _clock() * 1e-9 + _SETTLE_SECONDS * (torch.get_num_threads() > 1)
        sets.turn(checked=request["verify"])
        # A call that nobody can foresee: one that answers from memory every other time is found.
        chosen = request["warmup"] + sets.any_of(request["repeats"])
        gc.disable()
        try:
            with torch.set_grad_enabled(request["grad"]):
                for call in range(request["warmup"] + request["repeats"]):
                    last = call == request["warmup"] + request["repeats"] - 1
                    fresh = sets.fresh()
                    if (left := quiet - _clock() * 1e-9) > 0:
                        _sleep(left)
                    _synchronise()
                    start = _clock()
                    output = operation(*fresh.args, **fresh.kwargs)
                    _synchronise()
                    stop = _clock()
                    if call >= request["warmup"]:
                        seconds.append((stop - start) * 1e-9)
                    # Outside the clock: a promise of an output is none.
                    verify = call == chosen and request["verify"]
                    rows = request["rows"] if verify else few_rows(self._device)
                    sent = checked(output, rows)
                    if verify:  # a copy: a later call may write there
                        reply = {"index": fresh.index, "scale": fresh.scale}
                        reply["output"] = sent if last else deepcopy(sent)
                    if last and request["verify"]:
                        sets.check()
                    del output, sent
        finally:
            gc.enable()
        return {"seconds": seconds, **reply}

    def _memory(self, request: Mapping[str, Any]) -> dict[str, object]:
        operation, sets = self._operation(request), self._sets(request)
        with torch.set_grad_enabled(request["grad"]):
            for _ in range(2):  # the first call fills caches that stay
                sets.turn()
                fresh = sets.fresh()
                used = memory_of(partial(operation, *fresh.args, **fresh.kwargs))
        return asdict(used)

    def _info(self, request: Mapping[str, Any]) -> dict[str, object]:
        cuda = torch.cuda.is_available()
        return {
            "python": platform.python_version(),
            "executable": sys.executable,
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "pid": os.getpid(),
            "device": torch.cuda.get_device_name(0) if cuda else "cpu",
            "modules": {name: module_info(name) for name in request["modules"]},
        }


def _kind(error: BaseException) -> str:
    if isinstance(error, InputMutatedError):
        return "mutated"
    return "output" if isinstance(error, OutputError) else "raised"


def _attribute(target: Tree, path: str) -> Tree:
    for name in filter(None, path.split(".")):
        target = getattr(target, name)
    return target


def _synchronise() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _die_with(parent: int) -> None:
    """Let the kernel end this process when its parent dies, even inside a call that never ends."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def main(arguments: Sequence[str]) -> None:
    """Serve requests until the pipe is closed."""
    receive, send, parent, threads = (int(number) for number in arguments[:4])
    for pipe in (receive, send):
        os.set_inheritable(pipe, False)
    os.dup2(2, 1)
    _die_with(parent)
    settle()
    torch.set_num_threads(threads)
    device = arguments[4]
    if device != "cpu" and not torch.cuda.is_available():
        sys.exit(f"device: wanted one that torch {torch.__version__} can use, got {device!r}")
    server = _Server(device)
    with open(receive, "rb") as requests, open(send, "wb") as replies:  # noqa: PTH123 - descriptors
        hello = {"ok": True, "protocol": protocol.VERSION, "pid": os.getpid(), "id": 0}
        replies.write(protocol.encode(hello))
        replies.flush()
        while header := requests.read(protocol.HEADER.size):
            request = protocol.decode(requests.read(protocol.frame_length(header)))
            reply = server.answer(request)
            replies.write(protocol.encode({**reply, "id": request["id"]}))
            replies.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
