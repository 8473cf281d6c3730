"""What of a run or of a GPU pass belongs to the history, before asv hears of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

from msa_harness.records import RunError, RunHeader, RunStore
from msa_harness.verdicts import SeriesVerdict, Verdict
from msa_reports import summary
from msa_reports.history.tracks import Track, tracks_of
from msa_reports.report import VERDICT, read_outcome

GPU = "gpu.json"
#: Says nothing of the code.
_VOID = frozenset({Verdict.INVALID, Verdict.ERROR})
#: What of a run's judge says that something of the user's own was measured.
_OWN = ("cases", "items", "msa", "dtype")
#: How it was on the machine while a run measured: of no commit.
_CONDITIONS = "speed/machine/"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate said of a value: its verdict, and the threshold that held then.

    Attributes:
        verdict: PASS, REGRESSION, ...
        threshold: REGRESSION needs an effect above it.
        relative: Whether that is a fraction of base.
    """

    verdict: str
    threshold: float | None
    relative: bool


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a track.

    Attributes:
        track: Of what.
        value: As the gate measures it.
        samples: Independent values behind it, seconds of each pair of processes say; may be empty.
        judgement: The gate's, on head; None on base and where nothing was judged.
    """

    track: Track
    value: float
    samples: tuple[float, ...] = ()
    judgement: Judgement | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Values by commit, and the conditions that they share.

    Attributes:
        created: When, ISO 8601.
        environment: As a run's header has it: cpu_model, cores, device, platform, python, packages.
        facts: What makes a line of its own: implementation, model, profile, own shapes and items.
        commits: Full hash -> its points.
        left_out: A sentence for each thing that does not belong to the history.
    """

    created: str
    environment: Mapping[str, Any]
    facts: Mapping[str, str]
    commits: Mapping[str, tuple[Point, ...]]
    left_out: tuple[str, ...] = field(default=())


def read(directory: Path) -> Recording:
    """What a run directory, or the directory of a GPU pass, gives.

    Raises:
        RunError: it is neither, is broken or was not judged, or nothing of it is a commit's.
    """
    if not directory.is_dir():
        raise RunError(f"{directory}: wanted a run directory, got none")
    found = _gpu_pass(directory / GPU) if (directory / GPU).exists() else _run(directory)
    if not any(found.commits.values()):
        why = "; ".join(found.left_out) or "nothing was measured"
        raise RunError(f"{directory}: nothing of it belongs to the history: {why}")
    return found


def _run(directory: Path) -> Recording:
    store = RunStore.open(directory)
    header = store.header
    outcome = read_outcome(directory / VERDICT)
    if outcome is None:
        raise RunError(f"{directory}: wanted a judged run, got one without {VERDICT}; resume it")
    of_code = [s for s in outcome.series if not s.name.startswith(_CONDITIONS)]
    judged = [s for s in of_code if s.verdict not in _VOID]
    tracks, left_out = tracks_of(judged)
    if void := len(of_code) - len(judged):
        left_out.append(f"{void} series, INVALID or ERROR: they say nothing of the code")
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in store.samples():
        if sample.value is not None:
            samples[sample.subject, sample.series].append(sample.value)
    commits: dict[str, tuple[Point, ...]] = {}
    implementation = ""
    for subject in ("head", "base"):
        about = header.subjects.get(subject)
        commit, why = _commit(about)
        if why or not isinstance(about, dict):
            left_out.append(f"{subject}: {why}")
            continue
        implementation = implementation or str(about.get("implementation") or "")
        # In a self-test both are one commit: what head has comes first, and once.
        before = commits.get(commit, ())
        have = {point.track.name for point in before}
        commits[commit] = before + tuple(
            _point(s, tracks[s.name], subject, values)
            for s in judged
            if s.name in tracks
            and (values := samples[subject, s.name])
            and tracks[s.name].name not in have
        )
    facts = {
        "implementation": implementation,
        "model": Path(str(header.judge.get("model") or "")).name,
        "profile": header.profile,
        "own": _own(header),
    }
    _require_time(directory, header.created)
    return Recording(header.created, header.environment, facts, commits, tuple(left_out))


def _point(s: SeriesVerdict, track: Track, subject: str, values: list[float]) -> Point:
    value = s.base if subject == "base" else s.head
    if value is None:
        value = fmean(values)  # of checks: the share that passed
    judgement = None
    if subject == "head" and s.method != "report":
        judgement = Judgement(s.verdict.value, s.threshold, summary.is_share(s))
    # Only seconds are values of one thing, whose spread is the noise of its measurement.
    return Point(track, value, tuple(values) if s.unit == "s" else (), judgement)


def _own(header: RunHeader) -> str:
    """A name for shapes, items and settings of the user's own: other work under the same names."""
    own = {name: header.judge[name] for name in _OWN if header.judge.get(name)}
    if "--cases" in header.argv:
        own.setdefault("cases", "some")  # a run from before its header named them
    if (model := header.judge.get("model")) != "embedded":
        own["model"] = model  # two folders may have one name
    threads = header.environment.get("threads")
    if threads != header.environment.get("cores"):
        own["threads"] = threads
    text = json.dumps(own, sort_keys=True, default=str)
    return f"own-{hashlib.sha256(text.encode()).hexdigest()[:12]}" if own else ""


def _require_time(path: Path, created: str) -> None:
    try:
        if datetime.fromisoformat(created).tzinfo is not None:
            return
    except ValueError:
        pass
    raise RunError(f"{path}: created: wanted a time with its zone, got {created!r:.60}")


def _commit(about: object) -> tuple[str, str]:
    """The commit of a subject, and why it has none that others could look up."""
    if not isinstance(about, dict):
        return "", "not measured"
    commit = about.get("revision")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        return "", "not a commit"
    if about.get("dirty"):
        return "", f"uncommitted changes on {commit[:10]}"
    return commit, ""


def _gpu_pass(path: Path) -> Recording:
    """The times of a GPU pass; what failed there has none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        device = document["device"]
        environment = {
            "device": "gpu",
            "gpu": {"name": str(device["name"])},
            "platform": str(device["platform"]),
            "python": str(device["python"]),
            "packages": {name: device[name] for name in ("torch", "triton") if device.get(name)},
        }
        facts = {"implementation": str(document["implementation"]), "model": "", "profile": "gpu"}
        created, (commit, _, changes) = str(document["created"]), document["commit"].partition(", ")
        seconds = {
            f"gpu/{row['name']}": tuple(map(float, row["seconds"]))
            for row in document["rows"]
            if row.get("seconds")
        }
        if not all(math.isfinite(value) and value > 0 for row in seconds.values() for value in row):
            raise ValueError("seconds: wanted finite numbers above 0")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: wanted a GPU pass, got {type(error).__name__}: {error}") from error
    _require_time(path, created)
    tracks, left_out = tracks_of(
        SeriesVerdict(name, "gpu", "s", "lower", Verdict.NO_SIGNAL, method="report")
        for name in seconds
    )
    commit, why = _commit({"revision": commit, "dirty": changes})
    if why:
        left_out.append(why)
    points = (Point(track, median(seconds[name]), seconds[name]) for name, track in tracks.items())
    commits = {commit: tuple(points)} if commit else {}
    return Recording(created, environment, facts, commits, tuple(left_out))
