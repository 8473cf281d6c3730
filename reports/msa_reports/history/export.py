"""Recordings into asv's folder of results: what was measured once is shown in the history too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from asv import util
from asv.machine import Machine
from asv.repo import Repo
from asv.results import Results
from asv.runner import BenchmarkResult

from msa_harness.records import RunError, write_atomic
from msa_reports.history.recordings import Point, Recording
from msa_reports.history.tracks import Track
from msa_reports.text import clean

#: One line per track of all that was ever written here. Not named .json: asv reads those.
TRACKS = "tracks.jsonl"
#: asv's list of benchmarks, which every `asv run` writes anew.
BENCHMARKS = "benchmarks.json"
#: A key in a file of results that asv passes over: the verdicts behind it.
VERDICTS = "msa_bench_verdicts"


@dataclass(frozen=True, slots=True)
class Exported:
    """What went into the history: machine, series by commit, and a sentence for what did not."""

    machine: str
    commits: dict[str, int]
    left_out: tuple[str, ...]


def export(recording: Recording, results: Path, repo: Repo, *, machine: str = "") -> Exported:
    """Write a recording as results of asv, one file for each commit that ``repo`` has.

    The files are named by the time of the recording: writing it again changes nothing, and two
    recordings of one commit are two points there.

    Args:
        recording: what `recordings.read` returns.
        results: asv's ``results_dir``.
        repo: the repository whose history is shown.
        machine: name of the machine; empty: its GPU, or its processor and cores.

    Raises:
        RunError: no commit of the recording is in the repository, or the machine has no name.
    """
    about = _machine(recording.environment, machine)
    left_out, written = list(recording.left_out), {}
    for commit, points in recording.commits.items():
        try:
            date = repo.get_date_from_name(commit)
        except (util.ProcessError, ValueError, IndexError):
            left_out.append(f"commit {commit[:10]}: not in the repository")
            continue
        found = _results(recording, about, commit, date)
        created = datetime.fromisoformat(recording.created)
        for point in points:
            found.add_result(point.track.benchmark(), _result(point), created)
        found.save(str(results))
        _add_verdicts(results / found._filename, points)
        written[commit] = len(points)
    if not written:
        raise RunError(f"nothing belongs to the history: {'; '.join(left_out)}")
    util.write_json(str(results / about["machine"] / "machine.json"), about, Machine.api_version)
    known = read_tracks(results)
    known |= {p.track.name: p.track for points in recording.commits.values() for p in points}
    _write_tracks(results, known.values())
    return Exported(about["machine"], written, tuple(clean(line) for line in left_out))


def _machine(environment: Mapping[str, Any], name: str) -> dict[str, str]:
    """The machine as asv describes one; its name says the device, never the host."""
    device = str(environment.get("device") or "cpu")
    cores = str(environment.get("cores") or "")
    cpu = str(environment.get("cpu_model") or "cpu") if device == "cpu" else device
    text = name or (f"{cpu} {cores} cores" if device == "cpu" else device)
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not slug or len(slug) > 80:
        raise RunError(f"machine: wanted a name of 1 to 80 letters and digits, got {text!r:.100}")
    system, _, architecture = str(environment.get("platform") or "").partition(" ")
    facts = {"os": system, "arch": architecture, "cpu": cpu, "num_cpu": cores, "ram": ""}
    return {"machine": slug} | {key: clean(text, limit=60) for key, text in facts.items()}


def _results(recording: Recording, machine: dict[str, str], commit: str, date: int) -> Results:
    """Empty results. Versions are no parameters: a new torch is a step of a line, not a line."""
    facts = {name: clean(text, limit=60) for name, text in recording.facts.items()}
    packages = recording.environment.get("packages")
    stamp = re.sub(r"[^0-9]", "", recording.created)[:14]
    named = (re.sub(r"[^A-Za-z0-9_.]+", "_", text) for text in facts.values())
    return Results(
        machine | facts,
        {clean(str(name)): clean(str(version)) for name, version in dict(packages or {}).items()},
        commit,
        date,
        clean(str(recording.environment.get("python") or ""), limit=20),
        "-".join(("run", stamp, *filter(None, named))),
        {},
    )


def _result(point: Point) -> BenchmarkResult:
    """With its samples asv finds an interval, and a weight for the search of steps."""
    samples = list(point.samples) if len(point.samples) > 1 else None
    value = point.track.published(point.value)
    return BenchmarkResult([value], [samples], [1 if samples else None], 0, "", None)


def _add_verdicts(path: Path, points: Iterable[Point]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    data[VERDICTS] = {point.track.name: point.verdict for point in points if point.verdict}
    write_atomic(path, json.dumps(data, separators=(",", ":"), sort_keys=True) + "\n")


def read_tracks(results: Path) -> dict[str, Track]:
    """Every track that was ever written into asv's folder of results, by name.

    Raises:
        RunError: the file is broken; the text names the line.
    """
    path = results / TRACKS
    if not path.exists():
        return {}
    tracks = {}
    for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            track = Track(**json.loads(line))
        except (ValueError, TypeError) as error:
            text = f"{path}, line {i}: wanted a track, got {line!r:.80}: {error}"
            raise RunError(text) from error
        tracks[track.name] = track
    return tracks


def _write_tracks(results: Path, tracks: Iterable[Track]) -> None:
    lines = (json.dumps(asdict(one)) for one in sorted(tracks, key=lambda one: one.name))
    write_atomic(results / TRACKS, "".join(f"{line}\n" for line in lines))


def name_tracks(results: Path) -> None:
    """Put every track into asv's list of benchmarks, from which `asv run` drops them."""
    path = results / BENCHMARKS
    listed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"version": 2}
    listed |= {name: track.benchmark() for name, track in read_tracks(results).items()}
    write_atomic(path, json.dumps(listed, indent=1, sort_keys=True) + "\n")
