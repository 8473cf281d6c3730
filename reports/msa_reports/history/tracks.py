"""A series as asv knows it: a name with dots, a value of which less is better."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from msa_harness.verdicts import SeriesVerdict
from msa_reports.text import plural

#: Units of what is at most 1 and better when higher -> what asv shows, which is missing to 1.
LOSSES = {"share": "missing share", "recall": "missing recall", "check": "failed checks"}
#: asv's pages show units and facts as HTML.
_UNIT = re.compile(r"[A-Za-z0-9 /%._-]{1,40}")
#: asv's own words for units that it knows how to scale.
_UNITS = {"s": "seconds", "bytes": "bytes"}
#: Suite -> version of what is measured there. A new one starts a new history, so it is raised when
#: the items or the shapes of a suite change, never when its code does.
VERSIONS = {
    "correctness": "1",
    "method": "1",
    "work": "1",
    "quality": "1",
    "speed": "1",
    "aot": "1",
}


@dataclass(frozen=True, slots=True)
class Track:
    """One series in the history.

    Attributes:
        name: For asv and for files: letters, digits, `_`, `-` and dots.
        series: The series as the gate names it.
        suite: Its suite.
        unit: Of what the gate measures.
        direction: "lower" or "higher" is better, as the gate measures it.
        version: Of its suite: values of two versions are not compared.
    """

    name: str
    series: str
    suite: str
    unit: str
    direction: str
    version: str

    @property
    def is_loss(self) -> bool:
        """Whether asv is given what is missing to 1."""
        return self.direction == "higher"

    def published(self, value: float) -> float:
        """The value for asv, where lower is better, from the gate's; and back."""
        return 1.0 - value if self.is_loss else value

    def benchmark(self) -> dict[str, Any]:
        """What asv wants to know of it, as one entry of its benchmarks.json."""
        return {
            "name": self.name,
            "pretty_name": f"1 - {self.name}" if self.is_loss else self.name,
            "type": "track",
            "unit": (LOSSES if self.is_loss else _UNITS).get(self.unit, self.unit),
            "version": self.version,
            "param_names": [],
            "params": [],
            "timeout": 60.0,
            "code": f"{self.name}: measured by the gate, written by msa-bench publish",
            "msa_bench": asdict(self),
        }


def track_of(series: SeriesVerdict) -> Track:
    """The track of a judged series.

    Raises:
        ValueError: the unit is none, higher is better in one that has no loss, or the name has
            nothing in it that a file name may have.
    """
    if not _UNIT.fullmatch(series.unit):
        raise ValueError(f"unit: wanted 1 to 40 letters and digits, got {series.unit!r:.60}")
    if series.direction == "higher" and series.unit not in LOSSES:
        known = ", ".join(LOSSES)
        raise ValueError(
            f"unit: wanted one of {known} where higher is better (asv knows only lower), "
            f"got {series.unit!r:.40}"
        )
    name = ".".join(
        filter(
            None,
            (
                re.sub(r"[^\w-]+", "_", part, flags=re.ASCII).strip("_-")
                for part in series.name.split("/")
            ),
        )
    )
    if not name or len(name) > 150:
        raise ValueError("name: wanted 1 to 150 letters, digits and signs that a file may have")
    return Track(
        name=name,
        series=series.name,
        suite=series.suite,
        unit=series.unit,
        direction=series.direction,
        version=VERSIONS.get(series.suite, "1"),
    )


def tracks_of(series: Iterable[SeriesVerdict]) -> tuple[dict[str, Track], list[str]]:
    """Tracks by the name of the series, and a sentence for each reason why others have none."""
    tracks: dict[str, Track] = {}
    taken: dict[str, str] = {}
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in series:
        try:
            track = track_of(one)
            other = taken.setdefault(track.name, one.name)
            if other != one.name:
                raise ValueError(f"name: {other!r:.80} has the same one in asv")
        except ValueError as error:
            reasons[str(error)].append(one.name)
        else:
            tracks[one.name] = track
    return tracks, [
        f"{plural(len(names), 'series')}, the first {names[0]!r:.80}: {reason}"
        for reason, names in reasons.items()
    ]
