"""Sources of results that run at the same time, a thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Event
from typing import TypeVar

Result = TypeVar("Result")


def merged(sources: Sequence[Callable[[], Iterator[Result]]]) -> Iterator[Result]:
    """The results of all sources as they come, in this thread.

    Each source is made, run and closed in one thread of its own: the kernel ends a worker together
    with the thread that started it. Nothing that is timed may run like this.

    Raises:
        Exception: the first that a source raised, once the others have reached their next result.
    """
    results: Queue[Result | None] = Queue()
    stop = Event()

    def drain(source: Callable[[], Iterator[Result]]) -> None:
        try:
            for result in source():
                results.put(result)
                if stop.is_set():
                    break
        except BaseException:
            stop.set()
            raise
        finally:
            results.put(None)

    with ThreadPoolExecutor(max(len(sources), 1), "source") as pool:
        running = [pool.submit(drain, source) for source in sources]
        try:
            left = len(running)
            while left:
                result = results.get()
                if result is None:
                    left -= 1
                else:
                    yield result
        finally:
            stop.set()
        for one in running:
            one.result()
