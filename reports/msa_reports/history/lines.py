"""The lines of the history: values by commit, the steps in them, and the last verdict."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asv.graph import Graph, GraphSet
from asv.util import is_na

from msa_harness.records import RunError
from msa_reports.history.export import VERDICTS
from msa_reports.history.recordings import Judgement
from msa_reports.history.tracks import Track

#: What tells the lines of one track apart; everything else that asv knows is the same to a reader.
FACTS = ("machine", "implementation", "model", "profile", "own")

#: (facts, track) -> commit -> what the gate said.
Judgements = Mapping[tuple[tuple[str, ...], str], Mapping[str, Judgement]]


@dataclass(frozen=True, slots=True)
class Step:
    """A change: the first commit measured after it, and the level before and after it."""

    commit: str
    before: float
    after: float

    @property
    def worse(self) -> bool:
        """Whether asv's value rose: less is better."""
        return self.after > self.before


@dataclass(frozen=True, slots=True)
class Line:
    """One line of asv, less is better.

    Attributes:
        name: Of the benchmark in asv.
        parameter: Of a benchmark that asv itself ran, in words; empty for a track.
        unit: Of the values, as asv shows it.
        facts: FACTS, where known.
        track: What the gate knows of it; None for what asv itself ran.
        values: Commit and value, in the order of the history; at least one.
        steps: Changes that asv's step detection finds, in that order.
        judged: What the gate said last, and of which commit; None where it said nothing.
    """

    name: str
    parameter: str
    unit: str
    facts: tuple[str, ...]
    track: Track | None
    values: tuple[tuple[str, float], ...]
    steps: tuple[Step, ...]
    judged: tuple[Judgement, str] | None = None


def read_verdicts(results: Path) -> Judgements:
    """What the gate said, beside asv's results; of two at one commit the newer counts.

    Raises:
        RunError: a file is not of asv, or its verdicts are none of ours; the text names it.
    """
    found: dict[tuple[tuple[str, ...], str], dict[str, Judgement]] = {}
    loaded = []
    for path in sorted(results.glob("*/*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            given = {name: Judgement(**one) for name, one in data.get(VERDICTS, {}).items()}
            if given:
                facts = tuple(str(data["params"].get(name) or "") for name in FACTS)
                loaded.append((str(data["env_name"]), str(data["commit_hash"]), facts, given))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: wanted results of asv, got {error!r:.200}") from error
    for _, commit, facts, given in sorted(loaded, key=lambda one: one[0]):
        for name, judgement in given.items():
            found.setdefault((facts, name), {})[commit] = judgement
    return found


def lines_of(
    graphs: GraphSet,
    benchmarks: Mapping[str, Mapping[str, Any]],
    verdicts: Judgements,
    revisions: Mapping[str, int],
) -> list[Line]:
    """Every line that has a value, by name."""
    commits = {revision: commit for commit, revision in revisions.items()}
    lines: list[Line] = []
    for _, graph in graphs:
        if "summary" in graph.params or graph.benchmark_name not in benchmarks:
            continue
        benchmark = benchmarks[graph.benchmark_name]
        facts = tuple(str(graph.params.get(name) or "") for name in FACTS)
        for parameter, data, steps in _series(graph, benchmark):
            values = tuple((commits[at], float(value)) for at, value in data if not is_na(value))
            if not values:
                continue
            given = verdicts.get((facts, graph.benchmark_name), {})
            judged = [(said, commit) for commit, said in given.items() if commit in revisions]
            lines.append(
                Line(
                    name=graph.benchmark_name,
                    parameter=parameter,
                    unit=str(benchmark.get("unit") or ""),
                    facts=facts,
                    track=_track(benchmark),
                    values=values,
                    steps=tuple(
                        Step(commits[after[0]], float(before[2]), float(after[2]))
                        for before, after in itertools.pairwise(steps)
                    ),
                    judged=max(judged, key=lambda one: revisions[one[1]], default=None),
                )
            )
    return sorted(lines, key=lambda line: (line.facts, line.name, line.parameter))


def _series(
    graph: Graph, benchmark: Mapping[str, Any]
) -> Iterator[tuple[str, list[tuple[int, Any]], list[Any]]]:
    """Each combination of parameters of a graph: its name, (revision, value), and asv's steps."""
    data = graph.get_data()
    if graph.scalar_series:
        yield "", [(at, value) for at, value, _ in data], graph.get_steps()
        return
    names = (", ".join(one) for one in itertools.product(*benchmark["params"]))
    for i, (name, steps) in enumerate(zip(names, graph.get_steps(), strict=True)):
        yield name.replace("'", ""), [(at, values[i]) for at, values, _ in data], steps


def _track(benchmark: Mapping[str, Any]) -> Track | None:
    about = benchmark.get("msa_bench")
    if not isinstance(about, dict):
        return None
    try:
        return Track(**about)
    except TypeError as error:
        raise RunError(f"{benchmark.get('name')!r:.80}: wanted a track, got {error}") from error
