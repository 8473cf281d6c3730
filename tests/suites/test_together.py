"""Sources that run at the same time: nothing is lost, nothing goes on after a failure."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from msa_suites.together import merged


def count(name, upto, closed=None):
    try:
        for number in range(upto):
            yield name, number, threading.get_ident()
    finally:
        if closed is not None:
            closed.append(threading.get_ident())


def test_all_results_come_and_each_source_stays_in_one_thread():
    closed = []
    results = list(merged([partial(count, name, 50, closed) for name in "ab"]))
    assert [number for name, number, _ in results if name == "a"] == list(range(50))
    assert len(results) == 100
    threads = {name: {thread for one, _, thread in results if one == name} for name in "ab"}
    assert all(len(of_one) == 1 for of_one in threads.values())
    assert len(closed) == 2
    assert set(closed) == threads["a"] | threads["b"]
    assert threading.get_ident() not in closed
    assert list(merged([])) == []


def test_a_failure_is_raised_after_what_was_measured_and_stops_the_others():
    started = threading.Event()
    closed = []

    def failing():
        yield ("failing", 0, 0)
        started.wait(10)
        raise RuntimeError("no such model")

    def endless():
        for result in count("endless", 10**9, closed):
            started.set()
            yield result

    seen = []
    with pytest.raises(RuntimeError, match="no such model"):
        seen.extend(merged([failing, endless]))
    assert closed


def test_who_stops_reading_stops_the_sources():
    closed = []
    reading = merged([partial(count, "endless", 10**9, closed)])
    next(reading)
    reading.close()
    assert closed
