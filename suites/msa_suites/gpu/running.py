"""One row after another, each kept as soon as it is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from msa_kernels import Capabilities, capabilities
from msa_suites.case import NVFP4
from msa_suites.gpu.shapes import Row, Timed
from msa_suites.gpu.timing import LEAST, Clock
from msa_suites.gpu.work import Work, work_of

#: Calls of one row whose results must be the same bits.
REPEATS = 20
#: From this length on a dense prefill takes a second and more: few calls, of the backend that won.
LONG = 262_144
#: Up to this length a prefill is captured, and decoding and top-k are always: the host is slower.
SHORT = 16_384

#: Seconds of long dense prefills, by shape and backend.
Dense = dict[tuple[object, ...], dict[str, list[float]]]


def speed_rows(
    table: Iterable[Timed],
    implementation: Any,  # noqa: ANN401
    clock: Clock,
    *,
    memory: int,
    until: float,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Times of every row that ends before ``until`` (of ``time.monotonic``); why not, of the rest.

    Args:
        table: what to time, in this order.
        implementation: has ``attend``, or the operations that a row calls.
        clock: of its device.
        memory: bytes that a row may hold.
        until: no row begins after it.
        say: told what is going on.
    """
    won: dict[str, str] = {}  # by kind of work: the backend that was fastest at shorter lengths
    dense: Dense = {}
    lost = ""
    declared = capabilities(implementation)
    for row in table:
        found: Row = {"name": row.name, **asdict(row)}
        if lost:
            yield found | {"problem": f"not measured: the device was lost in {lost}"}
            continue
        if reason := _not_offered(row, declared):
            yield found | {"problem": f"not measured: {reason}"}
            continue
        if time.monotonic() > until:
            yield found | {"problem": "not measured: the time was up"}
            continue
        if row.bytes_held > memory:
            wanted = f"{row.bytes_held >> 30} GiB of {memory >> 30}"
            yield found | {"problem": f"not measured: it would hold {wanted}"}
            continue
        say(row.name)
        try:
            work = work_of(row, implementation, clock.device)
            found |= _measured(row, work, clock, won, dense)
        except Exception as error:  # noqa: BLE001 - a compiler's errors have no common type
            found |= {"problem": f"{type(error).__name__}: {_line(error)}"}
            lost = "" if clock.alive() else row.name
        yield found


def _not_offered(row: Timed, declared: Capabilities) -> str:
    """Why an implementation has no narrow row: who takes their factors says so."""
    for dtype in (row.index_dtype, row.kv_dtype):
        if dtype and dtype not in (declared.dtypes or ()):
            return f"its capabilities do not name {dtype}"
        if dtype == NVFP4 and (reason := declared.why_not(packed_dim=row.dim)):
            return reason
    return ""


def _measured(row: Timed, work: Work, clock: Clock, won: dict[str, str], dense: Dense) -> Row:
    wrong = work.problem(work.msa())
    if wrong:
        return {"problem": wrong}  # nothing is timed on a wrong result
    least = 2 if row.length >= LONG else LEAST
    run, not_captured = work.msa, "too long for the host to matter"
    if row.what == "scores":
        not_captured = "the width of the result waits for the device"
    elif row.what != "prefill" or row.length <= SHORT:
        run, not_captured = clock.captured(work.msa)
    seconds = clock.times(run, least=least)
    middle = statistics.median(seconds)
    found: Row = {
        "seconds": seconds,
        "not_captured": not_captured,
        "flops_per_second": work.flops / middle,
        "bytes_per_second": work.moved_bytes / middle,
        "problem": "",
    }
    others: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    as_calls: set[str] = set()  # while ours is a graph
    long = row.what == "prefill" and row.length >= LONG
    # A dense prefill of a million tokens takes half a minute: once for all overlaps and indexes.
    shape = (row.length, row.batch, row.heads, row.groups, row.dtype)
    if long and shape in dense:
        others = dict(dense[shape])
    for name in sorted(work.others, key=lambda name: name != won.get(row.what)):
        if long and others:
            break  # the one that was fastest before, or the first that takes this length
        try:
            other = work.others[name]
            if not not_captured:
                other, why = clock.captured(other)
                if why:
                    as_calls.add(name)
            others[name] = clock.times(other, least=least)
        except RuntimeError as error:  # a backend that is not there, or not for this shape
            failed[name] = _line(error)
    if long:
        dense[shape] = dict(others)
    if others:
        best = min(others, key=lambda name: statistics.median(others[name]))
        won[row.what] = best
        compared = seconds
        if best in as_calls:  # then ours is one too: the host is between the launches of both
            compared = found["seconds_as_calls"] = clock.times(work.msa, least=least)
        ratio = statistics.median(others[best]) / statistics.median(compared)
        found |= {"other": best, "other_seconds": others[best], "ratio": ratio}
    return found | {"others_failed": failed}


def replayed(row: Timed, implementation: Any, clock: Clock) -> Row:  # noqa: ANN401
    """Whether a captured decode step follows lengths that change in place."""
    problem = ""
    try:
        work = work_of(row, implementation, clock.device)
        if work.lengths is None:
            raise TypeError(f"wanted work over a cache, got {row.what}")
        replay, why = clock.captured(work.msa)
        if why:
            problem = f"it cannot be captured: {why}"
        for length in () if problem else (row.length, row.length // 2 + 1, 1):
            work.lengths.fill_(length)
            found, plain = _tensors(replay()), _tensors(work.msa())
            if not all(torch.equal(a, b) for a, b in zip(found, plain, strict=True)):
                problem = f"a captured step differs from a plain one at {length} tokens"
                break
    except Exception as error:  # noqa: BLE001 - as above
        problem = f"{type(error).__name__}: {_line(error)}"
    return {"name": f"captured/{row.name}", "calls": 3, "problem": problem}


def repeated_bits(table: Iterable[Timed], implementation: Any, device: str) -> Iterator[Row]:  # noqa: ANN401
    """Whether :data:`REPEATS` calls of each row give the same bits."""
    for row in table:
        problem = ""
        try:
            work = work_of(row, implementation, device)
            first = _tensors(work.msa())
            for _ in range(REPEATS - 1):
                again = _tensors(work.msa())
                if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
                    problem = "results move between identical calls"
                    break
        except Exception as error:  # noqa: BLE001 - as above
            problem = f"{type(error).__name__}: {_line(error)}"
        yield {"name": row.name, "calls": REPEATS, "problem": problem}


def _tensors(result: object) -> list[torch.Tensor]:
    parts = result if isinstance(result, tuple | list) else [result]
    # As bits: NaN is never equal to itself.
    return [x.contiguous().view(torch.int8).clone() for x in parts if isinstance(x, torch.Tensor)]


def _line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:200]
