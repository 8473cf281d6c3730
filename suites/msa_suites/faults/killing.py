"""Which mutants the gate kills: correctness first, then the method around it, then exact work."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from msa_suites.cases import case_named, cases_for
from msa_suites.faults.equivalents import why_equivalent
from msa_suites.faults.mutants import TOO_LATE, implementation_of
from msa_suites.faults.mutation import MODULES, Mutant, mutants_of
from msa_suites.faults.run import CAUGHT, FaultsError, Matrix

#: Cases that show most faults, and so stand first.
_FIRST = ("chunk-inside-block", "decode", "lengths-127-128-129", "sink-2-local-2", "many-blocks")
_GATES = ("correctness", "method", "work:prefill-4096-low", "work:prefill-8192-low")
_AROUND = ("method", "work:cache")
#: Operations; the other modules stand around them, and no correctness check asks for them.
_OPERATIONS = ("msa.fast.", "msa.packing")


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a mutant.

    Attributes:
        mutant: its name.
        what: the change.
        source: the line it is on.
        gate: that killed it; empty for a survivor.
        series: the first series that did.
        detail: what it said.
        seconds: in all.
        equivalent: why the mutant is the same program, where that is claimed.
    """

    mutant: str
    what: str
    source: str
    gate: str
    series: str
    detail: str
    seconds: float
    equivalent: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def drawn(count: int, seed: int, modules: Sequence[str] = MODULES) -> list[Mutant]:
    """``count`` of all mutants, in the order of the source; all of them where there are fewer."""
    everything = [one for module in modules for one in mutants_of(module)]
    if count >= len(everything):
        return everything
    kept = set(random.Random(seed).sample(range(len(everything)), count))
    return [one for position, one in enumerate(everything) if position in kept]


def again(rows: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Mutant]]:
    """What to try again of earlier results: survivors that nobody claims to be the same program.

    Args:
        rows: of :meth:`Fate.as_dict`, with the code of then.

    Returns:
        The rows that stand (killed, or claimed), under today's names, and the mutants to try: all
        alike where lines have moved. A change of a line that is gone is in neither.
    """
    kept: list[dict[str, Any]] = []
    left: list[Mutant] = []
    for row in rows:
        alike = [
            one
            for one in mutants_of(row["mutant"].partition(":")[0])
            if (one.source, one.what) == (row["source"], row["what"])
        ]
        same = [one for one in alike if one.name == row["mutant"]] or alike
        if row["gate"]:
            kept += [{**row, "mutant": one.name} for one in same[:1]]
            continue
        for one in same:
            if why_equivalent(one.name):
                kept.append({**row, "mutant": one.name})
            elif one not in left:
                left.append(one)
    return kept, left


def kill(matrix: Matrix, mutants: Iterable[Mutant], *, at_once: int) -> Iterator[Fate]:
    """Try to kill each mutant, in order.

    Raises:
        FaultsError: the right code does not pass a gate.
    """
    names = [*_FIRST, *(c.name for c in cases_for("correctness") if c.name not in _FIRST)]
    cases = tuple(case_named(name) for name in names)

    def one(mutant: Mutant) -> Fate:
        started = time.monotonic()
        gate, series, detail = "", "", ""
        inner = mutant.module.startswith(_OPERATIONS)
        for gate in _GATES if inner else _AROUND:
            narrow = cases if gate == "correctness" else None
            outcome = matrix.judged(gate, implementation_of(mutant), cases=narrow)
            stopped = [s for s in outcome.series if s.verdict in CAUGHT]
            if stopped or outcome.verdict in CAUGHT:
                series = stopped[0].name if stopped else ""
                detail = stopped[0].note if stopped else "; ".join(outcome.notes)
                if TOO_LATE in detail:
                    raise FaultsError(detail)
                break
        else:
            gate = ""
        seconds = round(time.monotonic() - started, 1)
        source = mutant.source
        same = why_equivalent(mutant.name)
        return Fate(mutant.name, mutant.what, source, gate, series, detail[:300], seconds, same)

    with ThreadPoolExecutor(at_once, "mutant") as pool:
        yield from pool.map(one, mutants)
