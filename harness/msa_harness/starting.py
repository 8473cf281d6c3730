"""Workers of several sides, started at once: imports take longer than many a measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from msa_harness.client import Worker


@contextmanager
def starter(
    start: Callable[[str], Worker], sides: Sequence[str]
) -> Iterator[Callable[[Sequence[str]], dict[str, Worker]]]:
    """A function that starts one worker of every side it is given and returns them by side.

    Where one fails to start, the others are closed and its error is raised. The threads that start
    workers live as long as the context: the kernel ends a worker with the thread that started it.

    Args:
        start: starts a worker of a side.
        sides: how many can start at once.
    """
    with ThreadPoolExecutor(len(sides), "start") as pool:

        def together(order: Sequence[str]) -> dict[str, Worker]:
            starting: dict[str, Future[Worker]] = {side: pool.submit(start, side) for side in order}
            wait(starting.values())
            failed = [error for one in starting.values() if (error := one.exception()) is not None]
            if failed:
                for one in starting.values():
                    if one.exception() is None:
                        one.result().close()
                raise failed[0]
            return {side: one.result() for side, one in starting.items()}

        yield together
