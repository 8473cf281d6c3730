"""The judge's side of a worker: starts it, asks it, and says plainly how it failed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msa_harness.channel import Channel
from msa_harness.failures import (
    CallFailedError,
    WorkerCrashedError,
    WorkerError,
    WorkerMemoryError,
    WorkerTimeoutError,
)
from msa_harness.memory import Memory
from msa_harness.protocol import Tree, spread
from msa_harness.stored import StoredSets
from msa_harness.subjects import Subject

__all__ = [
    "CallFailedError",
    "Timing",
    "Worker",
    "WorkerCrashedError",
    "WorkerError",
    "WorkerMemoryError",
    "WorkerTimeoutError",
]


@dataclass(frozen=True, slots=True)
class Timing:
    """Answer to a timing request.

    Attributes:
        seconds: Of each call, warm-up left out.
        output: What the last call returned; None unless it was asked for.
        index: Input set of the last call.
        scale: Factor on the varied tensors of the last call.
    """

    seconds: tuple[float, ...]
    output: Tree = None
    index: int = 0
    scale: float = 1.0


class Worker:
    """A process with the code of one subject. A context manager.

    The import path is: the harness, then `judge_paths`, then the subject's roots, then what its
    python has installed. The kernel ends it with the thread that started it; a forked one with the
    judge.

    Attributes:
        subject: Whose code it runs.
        start_seconds: From the start of the process until it answered.
        pid: Its process id.
        device: Where its tensors are put.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        threads: int = 1,
        judge_paths: Sequence[Path] = (),
        device: str = "cpu",
        timeout: float = 600.0,
        memory: float | None = None,
        forked: bool = False,
    ) -> None:
        """Start the process and wait until it answers.

        Args:
            subject: Whose code it runs.
            threads: torch's thread count in it.
            judge_paths: More directories of the judge to import from.
            device: Where tensors are put, "cpu" or "cuda".
            timeout: Seconds for each request that does not say otherwise, and for the start.
            memory: Bytes it may take; None for 45 % of what there is.
            forked: From a process of this Python that has imported much already, see `forked`.

        Raises:
            WorkerError: It did not start; the text has the end of its stderr.
        """
        if threads < 1:
            raise ValueError(f"threads: wanted at least 1, got {threads}")
        if forked and subject.python != sys.executable:
            raise ValueError(f"forked: wanted the judge's Python, got {subject.python}")
        if memory is not None and memory <= 0:
            raise ValueError(f"memory: wanted bytes above 0, got {memory}")
        self.subject = subject
        self.device = device
        self._timeout = timeout
        self._channel = Channel(
            subject,
            threads=threads,
            judge_paths=judge_paths,
            device=device,
            timeout=timeout,
            memory=memory,
            forked=forked,
        )
        self.start_seconds = self._channel.start_seconds
        self.pid = self._channel.pid

    def load(
        self,
        handle: str,
        target: str,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
    ) -> tuple[str, ...]:
        """Import "module:attribute" and keep it; with args or kwargs, call it and keep the result.

        Returns:
            Its public attributes.
        """
        build = args is not None or kwargs is not None
        request = {"handle": handle, "target": target, "build": build}
        request |= {"args": list(args or ()), "kwargs": dict(kwargs or {})}
        return tuple(self._ask("load", request, timeout)["operations"])

    def put(
        self,
        handle: str,
        sets: StoredSets,
        *,
        vary: Sequence[str] = (),
        shift: Sequence[str] = (),
        seed: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Keep sets of inputs, all of one shape.

        Args:
            handle: Name for later requests.
            sets: Handed out in turn.
            vary: Floating tensors (position "0", or keyword) that are multiplied with a fresh
                random factor before each call.
            shift: The same with powers of two, which round nothing: nobody needs to be told.
            seed: Of these factors.
            timeout: Seconds.
        """
        request = {"handle": handle, "path": sets.path, "seed": seed}
        self._ask("put", {**request, "vary": list(vary), "shift": list(shift)}, timeout)

    def drop(self, handle: str) -> None:
        """Forget an object or inputs."""
        self._ask("drop", {"handle": handle}, None)

    def call(
        self,
        handle: str,
        operation: str = "",
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        *,
        keep: str = "",
        check_inputs: bool = True,
        seed: int | None = None,
        grad: bool = False,
        timeout: float | None = None,
    ) -> Tree:
        """Call an operation of a kept object; "" calls the object itself.

        Args:
            handle: The object.
            operation: Attribute path below it.
            args: Positional arguments; `protocol.ref(handle)` stands for a kept object.
            kwargs: Keyword arguments.
            keep: Keep the result under this handle instead of returning it.
            check_inputs: Fail if the call writes into its input tensors.
            seed: Seed torch's global generator first.
            grad: Let autograd record.
            timeout: Seconds.

        Raises:
            CallFailedError: It raised, wrote into its inputs, or returned no plain values.
            WorkerTimeoutError: It did not return in time.
            WorkerCrashedError: It took the process down.
        """
        request: dict[str, object] = {"handle": handle, "operation": operation}
        request |= {"args": list(args), "kwargs": dict(kwargs or {}), "keep": keep}
        request |= {"check_inputs": check_inputs, "seed": seed, "grad": grad}
        return self._ask("call", request, timeout)["output"]

    def time(
        self,
        handle: str,
        operation: str,
        inputs: str,
        *,
        warmup: int = 0,
        repeats: int = 1,
        verify: bool = False,
        rows: Sequence[int] = (),
        grad: bool = False,
        timeout: float | None = None,
    ) -> Timing:
        """Time calls of an operation on kept inputs.

        With `verify` the output of one timed call comes back, which one is drawn, and the inputs
        are checked for writes. Of its tensors only `rows` of the first dimension come, the others
        are undefined; empty: all do.
        """
        if warmup < 0 or repeats < 1:
            raise ValueError(f"wanted warmup >= 0 and repeats >= 1, got {warmup} and {repeats}")
        request: dict[str, object] = {"handle": handle, "operation": operation, "inputs": inputs}
        request |= {"warmup": warmup, "repeats": repeats, "verify": verify, "grad": grad}
        reply = self._ask("time", {**request, "rows": list(rows)}, timeout)
        found = {name: reply[name] for name in ("output", "index", "scale") if name in reply}
        if rows and verify:
            found["output"] = spread(found["output"], rows)
        return Timing(tuple(reply["seconds"]), **found)

    def memory(
        self,
        handle: str,
        operation: str,
        inputs: str,
        *,
        grad: bool = False,
        timeout: float | None = None,
    ) -> Memory:
        """Bytes of one call above its inputs, once an earlier one has filled what stays."""
        request = {"handle": handle, "operation": operation, "inputs": inputs, "grad": grad}
        reply = self._ask("memory", request, timeout)
        return Memory(reply["peak"], reply["held"])

    def info(self, modules: Sequence[str] = ()) -> dict[str, Any]:
        """Python, torch, threads, device, and where named modules came from."""
        reply = self._ask("info", {"modules": list(modules)}, None)
        return {name: reply[name] for name in reply if name not in ("ok", "id")}

    def close(self) -> None:
        """End the process and all its children. May be called twice."""
        self._channel.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _ask(self, op: str, request: Mapping[str, object], timeout: float | None) -> dict[str, Any]:
        return self._channel.ask(op, request, self._timeout if timeout is None else timeout)
