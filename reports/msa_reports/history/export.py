"""Recordings into asv's folder of results: what was measured once is shown in the history too."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from asv import util
from asv.machine import Machine
from asv.repo import Repo
from asv.results import Results
from asv.runner import BenchmarkResult

from msa_harness.records import RunError, write_atomic
from msa_reports.history.machines import machine_of, plain
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


def export(
    recording: Recording,
    results: Path,
    repo: Repo,
    history: Collection[str],
    *,
    machine: str = "",
) -> Exported:
    """Write a recording as results of asv, one file for each commit of the history.

    The files are named by the time of the recording, so writing it again changes nothing. Of two
    recordings of one commit asv shows the mean.

    Args:
        recording: what `recordings.read` returns.
        results: asv's ``results_dir``.
        repo: the repository.
        history: the commits of it that asv shows.
        machine: name of the machine; empty: its GPU, or its processor and cores.

    Raises:
        RunError: no commit of the recording is in the history, the machine has no name, or a file
            of the folder is broken.
    """
    about = machine_of(recording.environment, machine)
    known = read_tracks(results)
    left_out, written = list(recording.left_out), {}
    require_history(recording, history)
    for commit, points in recording.commits.items():
        if commit not in history:
            left_out.append(f"commit {commit[:10]}: not on the branch that the history shows")
            continue
        for point in points:
            _require_same(known.get(point.track.name, point.track), point.track)
            known[point.track.name] = point.track
        found = _results(recording, about["machine"], commit, repo.get_date_from_name(commit))
        created = datetime.fromisoformat(recording.created)
        for point in points:
            found.add_result(point.track.benchmark(), _result(point), created)
        found.save(str(results))
        _add_verdicts(results / found._filename, points)
        written[commit] = len(points)
    util.write_json(str(results / about["machine"] / "machine.json"), about, Machine.api_version)
    _write_tracks(results, known.values())
    return Exported(about["machine"], written, tuple(clean(line) for line in left_out))


def require_history(recording: Recording, history: Collection[str]) -> None:
    """Raise RunError where no commit of a recording is in the history."""
    if not any(commit in history for commit in recording.commits):
        commits = ", ".join(commit[:10] for commit in recording.commits)
        raise RunError(
            f"commit: wanted one on the branch that the history shows, got {commits}; of a shallow "
            "clone fetch the rest: git fetch --unshallow"
        )


def _require_same(known: Track, track: Track) -> None:
    turned = (known.unit, known.direction) != (track.unit, track.direction)
    if turned and known.version == track.version:
        raise RunError(
            f"{track.series!r:.80}: wanted {known.unit}, {known.direction} is better, as its "
            f"history has it, got {track.unit}, {track.direction}; a new measurement of the suite "
            f"{track.suite} is a new version in history/tracks.py"
        )


def _results(recording: Recording, machine: str, commit: str, date: int) -> Results:
    """Empty results. Versions are no parameters: a new torch is a step of a line, not a line."""
    facts = {name: plain(text) for name, text in recording.facts.items()}
    packages = recording.environment.get("packages")
    stamp = re.sub(r"[^0-9]", "", recording.created)[:14]
    named = (re.sub(r"[^A-Za-z0-9_.]+", "_", text) for text in facts.values())
    return Results(
        {"machine": machine} | facts,
        {plain(str(name)): plain(str(version)) for name, version in dict(packages or {}).items()},
        commit,
        date,
        plain(str(recording.environment.get("python") or "")),
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
    data[VERDICTS] = {p.track.name: asdict(p.judgement) for p in points if p.judgement}
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
    try:
        listed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        listed |= {"version": listed.get("version", 2)}
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: wanted asv's list of benchmarks, got {error}") from error
    listed |= {name: track.benchmark() for name, track in read_tracks(results).items()}
    write_atomic(path, json.dumps(listed, indent=1, sort_keys=True) + "\n")
